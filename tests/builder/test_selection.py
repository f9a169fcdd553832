"""Which candidates ship, as a table of cases."""

from pathlib import Path

import pytest

from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.latency.stats import Burst, summarise
from stoker_builder.rows import Mark, Pace, Row
from stoker_builder.selection import select
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime

FILE = Path("candidate.onnx")


def row(  # noqa: PLR0913  one argument per thing that decides
    recipe: str = "int8-perchannel",
    *,
    p50_ms: float | None = 5.0,
    mark: Mark = Mark.PASS,
    audited: bool = True,
    why: str = "",
    openvino: bool = False,
    bf16: bool = False,
    path: Path | None = FILE,
) -> Row:
    """A candidate that passes and was timed, unless told otherwise."""
    session = SessionOptions(
        runtime=Runtime.OPENVINO if openvino else None,
        float_precision="bf16" if bf16 else "fp32",
    )
    pace = None
    if p50_ms is not None:
        stats = summarise([Burst((int(p50_ms * 1e6),) * 10)])
        pace = Pace(stats, vs_fp32=10.0 / p50_ms)
    return Row(
        "t", Candidate(recipe, session), path, mark=mark, pace=pace, audited=audited, why=why
    )


def fp32(p50_ms: float | None = 10.0, *, openvino: bool = False, mark: Mark = Mark.PASS) -> Row:
    """Floating point, in ONNX Runtime the reference that is always there."""
    return row("fp32", p50_ms=p50_ms, openvino=openvino, mark=mark)


def shipped(rows: tuple[Row, ...]) -> list[str]:
    """The names of those that ship, the winner first."""
    return [r.name for r in sorted(rows, key=lambda r: r.rank) if r.shipped]


def test_int8_ships_when_it_has_earned_it() -> None:
    """Certified, audited, measured and twice as fast."""
    rows = select([fp32(), row()])

    assert shipped(rows) == ["int8-perchannel"]
    assert rows[0].why == "int8-perchannel is faster"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (row(mark=Mark.FAIL, why="loss 8.00 pp"), "loss 8.00 pp"),
        (row(mark=Mark.INCONCLUSIVE), "its accuracy is not certified"),
        (row(mark=Mark.NOT_JUDGED), "its accuracy is not certified"),
        (row(p50_ms=9.2), "only 1.09x the speed of fp32; less precision has to be 1.1x"),
        (row(p50_ms=None), "its latency is not measurable here"),
        (row(audited=False, mark=Mark.NOT_FUSED, why="only 67 %"), "only 67 %"),
        (row("int8-mixed", path=None, why="no such operator"), "no such operator"),
    ],
)
def test_fp32_ships_otherwise(candidate: Row, reason: str) -> None:
    """Each thing that is missing keeps INT8 out, and is said."""
    rows = select([fp32(), candidate])

    assert shipped(rows) == ["fp32"]
    assert rows[1].why == reason


def test_the_first_of_equals_ships_not_the_luckiest() -> None:
    """Two per cent are one figure measured twice."""
    rows = select([fp32(), row("int8-a", p50_ms=5.0), row("int8-b", p50_ms=4.9)])

    assert shipped(rows) == ["int8-a"]
    assert rows[2].why == "int8-a comes first"


def test_the_fastest_ships_when_it_is_faster() -> None:
    """A fifth is more than noise."""
    rows = select([fp32(), row("int8-a", p50_ms=5.0), row("int8-b", p50_ms=4.0)])

    assert shipped(rows) == ["int8-b"]
    assert rows[1].why == "int8-b is faster"


def test_a_winner_that_needs_another_runtime_has_a_companion() -> None:
    """A device without OpenVINO gets the best that ONNX Runtime has."""
    rows = select([fp32(), row(p50_ms=5.0), row(p50_ms=4.0, openvino=True)])

    assert shipped(rows) == ["int8-perchannel-openvino", "int8-perchannel"]


def test_the_companion_may_be_fp32() -> None:
    """When no INT8 of ONNX Runtime passes, its FP32 goes along."""
    rows = select([fp32(), row(mark=Mark.FAIL), row(p50_ms=4.0, openvino=True)])

    assert shipped(rows) == ["int8-perchannel-openvino", "fp32"]


def test_of_what_is_certified_the_faster_ships() -> None:
    """BF16 lost no more than INT8 was allowed to, and no less."""
    bf16 = row("fp32", p50_ms=5.0, openvino=True, bf16=True)
    rows = select([fp32(), bf16, row(p50_ms=4.8)])

    assert shipped(rows) == ["int8-perchannel"]
    assert rows[1].why == "int8-perchannel is faster"


def test_int8_that_is_no_faster_than_bf16_stays_at_home() -> None:
    """What is not measurably faster has no reason to be less precise."""
    bf16 = row("fp32", p50_ms=5.0, openvino=True, bf16=True)
    rows = select([fp32(), bf16, row(p50_ms=4.95)])

    assert shipped(rows) == ["bf16-openvino", "int8-perchannel"]
    faster = row("int8-a", p50_ms=4.95, openvino=True)
    assert select([fp32(), bf16, faster])[2].why == (
        "not measurably faster than bf16-openvino, which is more precise"
    )


def test_of_equals_only_those_ship_that_are_fast_enough() -> None:
    """The first is within noise of the fastest, but not a tenth faster than FP32."""
    rows = select([fp32(), row("int8-a", p50_ms=9.2), row("int8-b", p50_ms=9.0)])

    assert shipped(rows) == ["int8-b"]


def test_an_fp32_that_was_not_timed_beats_only_by_being_there() -> None:
    """Where ONNX Runtime can not be timed, OpenVINO's FP32 proves nothing against it."""
    rows = select([fp32(None), fp32(9.0, openvino=True), row(p50_ms=None)])

    assert shipped(rows) == ["fp32"]


def test_int8_is_compared_with_the_fp32_that_was_timed_beside_it() -> None:
    """The target's kernels are OpenVINO's only: INT8 has to beat FP32 there."""
    rows = select([fp32(None), fp32(10.0, openvino=True), row(p50_ms=6.0, openvino=True)])

    assert shipped(rows) == ["int8-perchannel-openvino", "fp32"]


def test_skipping_the_gates_ships_the_first_file_there_is() -> None:
    """Whatever it answers, but it has to exist."""
    missing = row("int8-a", path=None)

    rows = select([fp32(), missing, row("int8-b", mark=Mark.FAIL)], skip_gates=True)

    assert shipped(rows) == ["int8-b"]


def test_a_table_without_fp32_is_a_mistake_of_ours() -> None:
    """FP32 is always a candidate, and it is the reference."""
    assert fp32().candidate == REFERENCE
    with pytest.raises(ValueError, match="always a candidate"):
        select([row()])
