"""An event as an entry of the systemd journal: one layout for all programs of a device.

Every kind of event has a ``MESSAGE_ID`` that follows from its name alone, so that a catalogue, an
alert or ``journalctl MESSAGE_ID=…`` needs no table of ours.
"""

import json
import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID, uuid5

NAMESPACE: Final = UUID("9f1c3a52-7d6e-4b1f-8a35-2c0e6f4d9b71")
SOCKET: Final = "/run/systemd/journal/socket"
MAX_FIELD_NAME: Final = 64

_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Z0-9_]")
_PLAIN: Final = re.compile(r"[^\s\"=]+")


def message_id(event: str) -> str:
    """The ``MESSAGE_ID`` of every event of this name."""
    return uuid5(NAMESPACE, event).hex


def entry(program: str, event: str, level: str, values: Mapping[str, object]) -> bytes:
    """The datagram that journald takes for one event.

    Args:
        program: becomes ``SYSLOG_IDENTIFIER``.
        event: the name, such as ``engine.swapped``.
        level: as the logging module names it; an unknown one counts as ``info``.
        values: become fields ``STOKER_<NAME>``, and are readable in ``MESSAGE``, too.
    """
    texts = {name: _text(value) for name, value in values.items()}
    words = [event, *(f"{name}={_quoted(text)}" for name, text in texts.items())]
    fields = {
        "MESSAGE": " ".join(words),
        "MESSAGE_ID": message_id(event),
        "PRIORITY": str(_PRIORITY.get(level, _PRIORITY["info"])),
        "SYSLOG_IDENTIFIER": program,
        "STOKER_EVENT": event,
    }
    for name, text in texts.items():
        fields.setdefault(_field_name(name), text)
    return b"".join(_field(name, text) for name, text in fields.items())


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str)
    except (TypeError, ValueError):  # keys that JSON has no word for, or a circle
        return repr(value)


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _field_name(name: str) -> str:
    return ("STOKER_" + _NOT_IN_A_NAME.sub("_", name.upper()))[:MAX_FIELD_NAME]


def _field(name: str, text: str) -> bytes:
    data = text.encode(errors="replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
