"""Which candidate ships, as a table of cases."""

from pathlib import Path

import pytest

from stoker_builder.latency.stats import Burst, summarise
from stoker_builder.rows import Mark, Pace, Row
from stoker_builder.selection import select

FILE = Path("candidate.onnx")
STATS = summarise([Burst((1_000_000,) * 10)])


def fp32() -> Row:
    """The candidate that is always there."""
    return Row("t", "fp32", FILE, mark=Mark.REFERENCE)


def int8(
    name: str = "int8-perchannel",
    *,
    mark: Mark = Mark.PASS,
    faster: float | None = 2.0,
    audited: bool = True,
    why: str = "",
) -> Row:
    """A candidate that passes, unless told otherwise."""
    pace = None if faster is None else Pace(STATS, vs_fp32=faster)
    return Row("t", name, FILE, mark=mark, pace=pace, audited=audited, why=why)


def shipped(rows: tuple[Row, ...]) -> str:
    """The name of the one that ships."""
    (winner,) = [row.candidate for row in rows if row.shipped]
    return winner


def test_int8_ships_when_it_has_earned_it() -> None:
    """Certified, audited, measured and twice as fast."""
    rows = select([fp32(), int8()])

    assert shipped(rows) == "int8-perchannel"
    assert rows[0].why == "int8-perchannel is faster"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (int8(mark=Mark.FAIL, why="loss 8.00 pp"), "loss 8.00 pp"),
        (int8(mark=Mark.INCONCLUSIVE), "its accuracy is not certified"),
        (int8(mark=Mark.NOT_JUDGED), "its accuracy is not certified"),
        (int8(faster=1.09), "only 1.09x the speed of FP32; INT8 has to be 1.1x"),
        (int8(faster=None), "its latency is not measurable here"),
        (int8(audited=False, mark=Mark.NOT_FUSED, why="only 67 %"), "only 67 %"),
        (Row("t", "int8-mixed", None, why="no such operator"), "no such operator"),
    ],
)
def test_fp32_ships_otherwise(candidate: Row, reason: str) -> None:
    """Each thing that is missing keeps INT8 out, and is said."""
    rows = select([fp32(), candidate])

    assert shipped(rows) == "fp32"
    assert rows[1].why == reason


def test_the_first_of_several_ships_not_the_fastest() -> None:
    """A lucky measurement does not choose among recipes."""
    rows = select([fp32(), int8("int8-a", faster=2.0), int8("int8-b", faster=2.1)])

    assert shipped(rows) == "int8-a"
    assert rows[2].why == "int8-a comes first"


def test_skipping_the_gates_ships_the_first_file_there_is() -> None:
    """Whatever it answers, but it has to exist."""
    missing = Row("t", "int8-a", None)

    rows = select([fp32(), missing, int8("int8-b", mark=Mark.FAIL)], skip_gates=True)

    assert shipped(rows) == "int8-b"


def test_a_table_without_fp32_is_a_mistake_of_ours() -> None:
    """FP32 is always a candidate."""
    with pytest.raises(ValueError, match="always a candidate"):
        select([int8()])
