"""Which candidate ships. Pure.

Rule 1: FP32 always may; INT8 has to earn its place.
Rule 2: INT8 ships when the fusion audit and the accuracy gate pass and it was measured, on
the target's own kernels, to be at least a tenth faster than FP32.
Rule 3: of several, the first in the target's order ships, not the luckiest measurement.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from stoker_builder.candidates.recipes import FP32
from stoker_builder.rows import Mark, Row

MIN_SPEEDUP: Final = 1.10


def select(rows: Sequence[Row], *, skip_gates: bool = False) -> tuple[Row, ...]:
    """Mark the row that ships, and say of every other why it does not.

    Args:
        rows: the candidates for one target in its order; one of them is FP32.
        skip_gates: ship the first INT8 candidate that could be made, whatever it answers.

    Raises:
        ValueError: there is no FP32 row.
    """
    if not any(row.candidate == FP32 for row in rows):
        msg = "FP32 is always a candidate"
        raise ValueError(msg)
    objections = {row.candidate: objection(row, skip_gates=skip_gates) for row in rows}
    eligible = [row for row in rows if row.candidate != FP32 and not objections[row.candidate]]
    winner = eligible[0].candidate if eligible else FP32
    return tuple(
        replace(
            row,
            shipped=row.candidate == winner,
            why="" if row.candidate == winner else _why(row, objections[row.candidate], winner),
        )
        for row in rows
    )


def objection(row: Row, *, skip_gates: bool = False) -> str:
    """What speaks against shipping a row; empty when nothing does."""
    if row.candidate == FP32:
        return ""
    if row.path is None:
        return row.why or "it could not be made"
    if skip_gates:
        return ""
    faster = 0.0 if row.pace is None else row.pace.vs_fp32 or 0.0
    slow = f"only {faster:.2f}x the speed of FP32; INT8 has to be {MIN_SPEEDUP:.1f}x"
    conditions = (
        (row.audited, row.why or "too little of it is quantised"),
        (row.mark is Mark.PASS, row.why or "its accuracy is not certified"),
        (row.pace is not None, row.why or "its latency is not measurable here"),
        (faster >= MIN_SPEEDUP, slow),
    )
    return next((reason for holds, reason in conditions if not holds), "")


def _why(row: Row, objected: str, winner: str) -> str:
    if objected:
        return objected
    return f"{winner} is faster" if row.candidate == FP32 else f"{winner} comes first"
