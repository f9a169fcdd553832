"""What journald is given: whole entries, whatever the values are."""

from hypothesis import given
from hypothesis import strategies as st

from stoker_contract.journal import MAX_FIELD_NAME, entry, message_id

VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text()))


def parsed(data: bytes) -> dict[str, str]:
    """An entry as journald reads it."""
    fields: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            length = int.from_bytes(rest[:8], "little")
            value, end, rest = (
                rest[8 : 8 + length],
                rest[8 + length : 9 + length],
                rest[9 + length :],
            )
            assert end == b"\n"
        fields[name.decode()] = value.decode()
        data = rest
    return fields


def test_an_event_can_be_found_by_name_and_by_value() -> None:
    """Name, level and every value are fields; the message is readable by itself."""
    values = {"release": "digits/2", "drain_ms": 12, "reason": "two words"}
    fields = parsed(entry("stoker-server", "engine.swapped", "warning", values))

    assert fields["STOKER_EVENT"] == "engine.swapped"
    assert fields["STOKER_RELEASE"] == "digits/2"
    assert fields["STOKER_DRAIN_MS"] == "12"
    assert fields["PRIORITY"] == "4"
    assert fields["SYSLOG_IDENTIFIER"] == "stoker-server"
    assert fields["MESSAGE"] == 'engine.swapped release=digits/2 drain_ms=12 reason="two words"'


def test_a_kind_of_event_keeps_its_id() -> None:
    """People search and alert by it, so it never changes."""
    assert message_id("engine.swapped") == "f25f88ead026578d83c3807ab8453e1f"
    assert message_id("engine.swapped") != message_id("engine.started")


@given(st.dictionaries(st.text(), VALUES))
def test_no_value_breaks_an_entry_or_forges_another_field(values: dict[str, object]) -> None:
    """Newlines, equals signs and strange names stay inside their own field."""
    fields = parsed(entry("stoker-agent", "an.event", "info", values))

    assert fields["STOKER_EVENT"] == "an.event"
    assert fields["PRIORITY"] == "6"
    assert all(name.isascii() and len(name) <= MAX_FIELD_NAME for name in fields)
    assert len([name for name in fields if not name.startswith("STOKER_")]) == 4
