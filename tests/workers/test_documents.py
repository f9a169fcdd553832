"""What workers and service say to each other: read in one way, refused in one way."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stoker_builder.workers.documents import (
    Attempt,
    BuildJob,
    Ending,
    Grant,
    JobList,
    JobOutcome,
    JobView,
    Refused,
    WorkerDescription,
    WorkerList,
    WorkerView,
)
from stoker_builder.workers.states import JobState
from stoker_contract.document import Document
from stoker_contract.errors import ContractError
from support.build_jobs import blob, job, success, worker

ID = "0" * 32
VIEW = JobView(id=ID, state=JobState.DONE, job=job(), outcome=success(worker=worker()))
EXAMPLES: tuple[Document, ...] = (
    Attempt(number=1),
    Ending(number=2, outcome=success(timing_cache=blob(b"t"))),
    Grant(id=ID, number=1, job=job(), lease_s=60.0, timing_cache=blob(b"t")),
    JobList(jobs=(VIEW,)),
    Refused.of("JOB_STATE", "x" * 5000),
    VIEW,
    WorkerList(workers=(WorkerView(worker=worker(), silent_s=1.5),)),
    job(samples=blob(b"samples"), limit_s=5.0),
    success(),
    worker(),
)
FROM_OUTSIDE = (BuildJob, Ending, Grant, JobOutcome, JobView, WorkerDescription, WorkerList)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_what_is_written_can_be_read(example: Document) -> None:
    """Encoding and parsing give back an equal document, and the same bytes again."""
    read = type(example).parse(example.encode())
    assert read == example
    assert read.encode() == example.encode()


@pytest.mark.parametrize("kind", FROM_OUTSIDE, ids=lambda kind: kind.__name__)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_document_are_refused_as_such(kind: type[Document], data: bytes) -> None:
    """Whatever the bytes, reading raises our error or nothing."""
    with pytest.raises(ContractError):
        kind.parse(data)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
@given(data=st.data())
def test_a_damaged_document_is_refused_as_such(example: Document, data: st.DataObject) -> None:
    """A changed byte gives another document or our error, never anything else."""
    encoded = bytearray(example.encode())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    try:
        type(example).parse(bytes(encoded))
    except ContractError:
        return


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hardware_class", "../up"),
        ("max_attempts", 0),
        ("max_attempts", 1000),
        ("limit_s", -1.0),
        ("limit_s", 1e9),
        ("onnx", {"digest": "0" * 64, "length": 0}),
        ("onnx", {"digest": "0" * 64, "length": 2**60}),
        ("onnx", {"digest": "../../etc/passwd", "length": 1}),
    ],
)
def test_a_job_has_bounds(field: str, value: object) -> None:
    """What could keep a worker for ever, or leave its folder, is no job."""
    with pytest.raises(ContractError):
        BuildJob.parse_object({**job().to_object(), field: value})


def test_limits_are_not_part_of_what_is_asked_for() -> None:
    """The same plan comes out, however long somebody would have waited."""
    assert job().key == job(limit_s=1.0, max_attempts=1, memory_bytes=2**30).key
    assert job().key != job(samples=blob(b"samples")).key
    assert job().key != job(b"another graph").key


def test_everything_of_a_workers_software_is_part_of_the_key() -> None:
    """An upgrade of any part is another answer; a worker's name is not."""
    keys = {
        worker("a", **changed).software.key_of(job())
        for changed in (
            {},
            {"tensorrt": "10.3.1"},
            {"l4t": "36.4.4"},
            {"cuda": "12.8"},
            {"module": "orin-nx-16gb"},
            {"power_mode": "MAXN"},
            {"code": "f00"},
        )
    }
    assert len(keys) == 7
    assert worker("b").software.key_of(job()) in keys
