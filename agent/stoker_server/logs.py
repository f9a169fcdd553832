"""Log events, not prose: fields for the journal, JSON for machines, colours for people."""

import socket
import sys
from typing import Any, Final, Literal

import structlog

from stoker_contract.journal import SOCKET, entry

LogFormat = Literal["journal", "json", "console"]
PROGRAM: Final = "stoker-server"


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


def configure(form: LogFormat) -> None:
    """Set up logging for this process."""
    processors: list[structlog.types.Processor] = [structlog.processors.add_log_level]
    factory: Any = structlog.PrintLoggerFactory(sys.stderr)
    if form != "journal":  # which has a time of its own
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    processors.append(structlog.processors.format_exc_info)
    if form == "journal":
        processors.append(_to_entry)
        factory = _Journal
    elif form == "json":
        processors.append(structlog.processors.JSONRenderer())
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    structlog.configure(
        processors=processors, logger_factory=factory, cache_logger_on_first_use=True
    )
