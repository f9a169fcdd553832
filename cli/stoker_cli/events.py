"""Where the events of programs that run for long go: standard output is for answers."""

import logging
import sys


def log_to_stderr(log_format: str = "console") -> None:
    """Write events to standard error, as ``console`` or ``json``."""
    import structlog  # noqa: PLC0415

    last: structlog.types.Processor = structlog.processors.JSONRenderer()
    if log_format == "console":
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
