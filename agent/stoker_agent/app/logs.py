"""How the agent logs: fields for the journal, JSON for machines, colours for a terminal."""

import logging
import socket
import sys
from typing import Any, Final, Literal

import structlog

from stoker_contract.journal import SOCKET, entry

PROGRAM: Final = "stoker-agent"


class _Journal:
    """Where entries go; standard error, which systemd collects too, when nobody takes them."""

    def __init__(self, *_: object) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def msg(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, SOCKET)
        except OSError:
            sys.stderr.write(data.decode(errors="replace").splitlines()[0] + "\n")

    debug = info = warning = error = critical = msg


def _to_entry(_logger: object, level: str, event: structlog.typing.EventDict) -> bytes:
    name = str(event.pop("event"))
    event.pop("level", None)
    return entry(PROGRAM, name, level, event)


def configure_logs(style: Literal["journal", "json", "console"], *, debug: bool = False) -> None:
    """Log events with a name and fields."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    factory: Any = structlog.WriteLoggerFactory(file=sys.stderr)
    if style != "journal":  # which has a time of its own
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if style == "journal":
        processors += [structlog.processors.format_exc_info, _to_entry]
        factory = _Journal
    elif style == "json":
        processors += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
