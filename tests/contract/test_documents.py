"""Every document: what is written can be read, and reading fails in one way only."""

import importlib
import json
import pkgutil
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import stoker_contract
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Request, Response
from stoker_contract.desired import Desired
from stoker_contract.document import MAX_DEPTH, MAX_DOCUMENT_BYTES, Document
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Manifest
from stoker_contract.reported import Presence, Reported
from stoker_contract.status import StatusEvent
from stoker_contract.telemetry import Telemetry
from support.documents import DESIRED, EXAMPLES, MANIFEST

PRESENCE = b'{"device":"edge-1","state":"online","epoch":1}'
READ_FROM_OUTSIDE = (Desired, Manifest, Reported, StatusEvent, Telemetry, Request, Response)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def documents() -> set[type[Document]]:
    for module in pkgutil.iter_modules(stoker_contract.__path__):
        importlib.import_module(f"stoker_contract.{module.name}")
    found, frontier = set(), [Document]
    while frontier:
        for child in frontier.pop().__subclasses__():
            if child.__module__.startswith("stoker_contract."):
                found.add(child)
                frontier.append(child)
    return found


def refused(kind: type[Document], data: bytes) -> ReasonCode:
    with pytest.raises(ContractError) as refusal:
        kind.parse(data)
    assert len(refusal.value.detail) <= 1024
    return refusal.value.code


def test_there_is_an_example_of_every_document() -> None:
    """No document is added without taking part in these tests."""
    missing = documents() - {type(example) for example in EXAMPLES}
    assert not {kind.__name__ for kind in missing}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_what_is_written_can_be_read(example: Document) -> None:
    """Encoding and parsing give back an equal document, and the same bytes again."""
    data = example.encode()
    read = type(example).parse(data)
    assert read == example
    assert read.encode() == data
    assert type(example).parse_object(example.to_object()) == example


@pytest.mark.parametrize("kind", READ_FROM_OUTSIDE, ids=lambda kind: kind.__name__)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_document_are_refused_as_such(kind: type[Document], data: bytes) -> None:
    """Whatever the bytes, reading raises our error or nothing."""
    refused(kind, data)


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [path, *(found for key, child in children for found in _paths(child, (*path, key)))]


def _replace(value: Any, path: tuple[str | int, ...], new: object) -> object:  # noqa: ANN401  JSON
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _replace(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("example", [DESIRED, MANIFEST], ids=["Desired", "Manifest"])
@given(data=st.data())
def test_a_document_that_was_tampered_with_is_read_or_refused(
    example: Document, data: st.DataObject
) -> None:
    """Any value in any place of a real document never leaks another kind of error."""
    whole = example.to_object()
    path = data.draw(st.sampled_from(_paths(whole)))
    tampered = _replace(whole, path, data.draw(values))
    try:
        read = type(example).parse(json.dumps(tampered).encode())
    except ContractError:
        return
    assert type(example).parse(read.encode()) == read


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ReasonCode.MALFORMED),
        (b"\xff\xfe", ReasonCode.MALFORMED),
        (b"[]", ReasonCode.MALFORMED),
        (b"nan", ReasonCode.MALFORMED),
        (PRESENCE + b" x", ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b":NaN"), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b":1.5"), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b':"1"'), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b":true"), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b":-1"), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b':1,"epoch":2'), ReasonCode.MALFORMED),
        (PRESENCE.replace(b":1", b":" + b"9" * 5000), ReasonCode.MALFORMED),
        (PRESENCE.replace(b"edge-1", b"\\ud800"), ReasonCode.MALFORMED),
        (PRESENCE.replace(b"online", b"asleep"), ReasonCode.UNSUPPORTED),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), ReasonCode.MALFORMED),
        (b"[" * 60_000, ReasonCode.MALFORMED),
        (b" " * MAX_DOCUMENT_BYTES + PRESENCE, ReasonCode.TOO_LARGE),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_each_kind_of_bad_bytes_has_its_code(data: bytes, code: ReasonCode) -> None:
    """Malformed, too large and unknown values are told apart."""
    assert refused(Presence, data) is code


def test_brackets_in_a_text_are_not_depth() -> None:
    """Only nesting counts as nesting, also after an escaped quotation mark."""
    brackets = "[{" * 100 + '\\"' + "[" * 20
    response = Response(id=1, detail=brackets)
    assert Response.parse(response.encode()) == response


def test_an_older_device_reads_a_newer_document() -> None:
    """A field that this version does not know is ignored."""
    assert Presence.parse(PRESENCE.replace(b":1", b':1,"mood":"good"')).epoch == 1


def test_a_value_that_is_not_json_is_refused() -> None:
    """Embedding takes JSON values only."""
    for value in (object(), {"epoch": {1, 2}}, float("nan")):
        with pytest.raises(ContractError):
            Presence.parse_object(value)


def test_only_a_final_status_has_an_outcome() -> None:
    """A final event says how it ended, and no other event claims to."""
    example = next(example for example in EXAMPLES if isinstance(example, StatusEvent))
    open_ended = {**example.to_object(), "final": False}
    without = {key: value for key, value in example.to_object().items() if key != "outcome"}
    for wrong in (open_ended, without):
        with pytest.raises(ContractError):
            StatusEvent.parse_object(wrong)
