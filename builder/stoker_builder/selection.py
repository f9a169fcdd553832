"""Which candidates ship. Pure.

Rule 1: FP32 in ONNX Runtime always may; everything else has to earn its place.
Rule 2: a candidate ships when the fusion audit and the accuracy gate pass and it was measured
with the kernels of the target.
Rule 3: less precision than FP32 ships when it was measured to be at least a tenth faster than
the fastest FP32. Whatever is certified has paid that price: of two such the faster ships.
Rule 4: within one precision the fastest ships; what is not measurably slower counts as equal,
and of equals the first in the target's order ships, not the luckiest measurement.
Rule 5: when the winner needs a runtime that a device may lack, the winner among ONNX Runtime's
candidates ships too, behind it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from stoker_builder.candidates.candidate import REFERENCE
from stoker_builder.rows import Mark, Row
from stoker_contract.manifest import Precision
from stoker_contract.target import Runtime

MIN_SPEEDUP: Final = 1.10
SAME_SPEED: Final = 1.03  # two medians within this are one figure measured twice
_FALLING: Final = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)


def select(rows: Sequence[Row], *, skip_gates: bool = False) -> tuple[Row, ...]:
    """Mark the rows that ship, the winner with rank 1, and say of every other why it does not.

    Args:
        rows: the candidates for one target in its order; one of them is the reference.
        skip_gates: ship the first INT8 candidate that could be made, whatever it answers.

    Raises:
        ValueError: there is no reference row.
    """
    if not any(row.candidate == REFERENCE for row in rows):
        msg = "FP32 is always a candidate"
        raise ValueError(msg)
    objections = {row.name: objection(row, skip_gates=skip_gates) for row in rows}
    eligible = [row for row in rows if not objections[row.name]]
    winners = [_winner(eligible, skip_gates=skip_gates)]
    if winners[0].candidate.runtime is not Runtime.ONNXRUNTIME:
        everywhere = [row for row in eligible if row.candidate.runtime is Runtime.ONNXRUNTIME]
        winners.append(_winner(everywhere, skip_gates=skip_gates))
    ranks = {row.name: rank for rank, row in enumerate(winners, start=1)}
    return tuple(
        replace(
            row,
            rank=ranks.get(row.name, 0),
            why="" if row.name in ranks else objections[row.name] or _why(row, winners[0]),
        )
        for row in rows
    )


def objection(row: Row, *, skip_gates: bool = False) -> str:
    """What speaks against shipping a row; empty when nothing does."""
    if row.candidate == REFERENCE:
        return ""
    if row.path is None:
        return row.why or "it could not be made"
    if skip_gates:
        return ""
    conditions = (
        (row.audited, row.why or "too little of it is quantised"),
        (row.mark is Mark.PASS, row.why or "its accuracy is not certified"),
        (row.pace is not None, row.why or "its latency is not measurable here"),
    )
    return next((reason for holds, reason in conditions if not holds), "")


def _winner(eligible: Sequence[Row], *, skip_gates: bool) -> Row:
    if skip_gates:
        quantised = [row for row in eligible if row.precision is Precision.INT8]
        return quantised[0] if quantised else eligible[0]
    best: Row | None = None
    for precision in _FALLING:
        fastest = _fastest([row for row in eligible if row.precision is precision])
        paying = [row for row in fastest if best is None or _pays(row, best)]
        best = paying[0] if paying else best
    if best is None:
        msg = "nothing is eligible, not even FP32"
        raise ValueError(msg)
    return best


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """Those that nothing is measurably faster than, in their order."""
    untimed = [row for row in rows if row.candidate == REFERENCE and row.pace is None]
    timed = [row for row in rows if row.pace is not None]
    if untimed or not timed:
        return untimed
    limit_ms = min(_p50_ms(row) for row in timed) * SAME_SPEED
    return [row for row in timed if _p50_ms(row) <= limit_ms]


def _pays(row: Row, precise: Row) -> bool:
    """Whether a row is enough faster than the best of more precision."""
    if precise.precision is Precision.FP32:
        return gain(precise, row) >= MIN_SPEEDUP
    return gain(precise, row) > SAME_SPEED


def gain(slower: Row, faster: Row) -> float:
    """How many times faster one is, in medians of one run.

    A reference without a time (ONNX Runtime can not be told to use the target's instructions)
    stands for the FP32 that was timed beside the other.
    """
    if slower.pace is None or faster.pace is None:
        return (faster.pace.vs_fp32 or 0.0) if faster.pace is not None else 0.0
    return _p50_ms(slower) / _p50_ms(faster)


def _p50_ms(row: Row) -> float:
    assert row.pace is not None  # noqa: S101 - only timed rows get here
    return row.pace.stats.p50_ms


def _why(row: Row, winner: Row) -> str:
    if gain(row, winner) > SAME_SPEED:
        return f"{winner.name} is faster"
    if row.precision is winner.precision:
        return f"{winner.name} comes first"
    faster = gain(winner, row)
    if winner.precision is Precision.FP32:
        return f"only {faster:.2f}x the speed of {winner.name}; less precision has to be 1.1x"
    return f"not measurably faster than {winner.name}, which is more precise"
