"""What emulation adds to the rows of a target whose kernels this machine does not have."""

from dataclasses import replace

from stoker_builder.accuracy.certify import judge
from stoker_builder.accuracy.golden import GoldenSet
from stoker_builder.accuracy.risk import Risk
from stoker_builder.bench import Bench
from stoker_builder.candidates.candidate import REFERENCE
from stoker_builder.candidates.recipes import FP32
from stoker_builder.kernels.emulation import Emulator
from stoker_builder.kernels.engines import EngineRunner
from stoker_builder.kernels.places import Way
from stoker_builder.rows import Mark, Row
from stoker_builder.targets import TargetSpec
from stoker_contract.target import Runtime


def emulate_shipped(
    target: TargetSpec, row: Row, golden: GoldenSet, emulator: Emulator, share: float
) -> tuple[Row, GoldenSet]:
    """Let the target's own kernels answer the golden set, where only emulation can.

    Args:
        target: whose kernels.
        row: what ships.
        golden: what it answers on this machine.
        emulator: of that target.
        share: of its time.

    Returns:
        The row, saying whose kernels answered how much, and what they answered.
    """
    assert row.path is not None  # noqa: S101 - it ships
    if (reason := emulator.unavailable) is not None:
        emulator.progress.note(f"{target.name}: {reason}")
        return row, golden
    golden, certified_on = emulator.golden(row.path, golden, row.precision, share=share)
    if row.accuracy is None or certified_on is None:
        return row, golden
    accuracy = row.accuracy.model_copy(update={"certified_on": certified_on})
    return replace(row, accuracy=accuracy), golden


def is_unseen(bench: Bench, target: TargetSpec, row: Row) -> bool:
    """Whether a quantised candidate is one that emulation alone can tell something about."""
    place = bench.place_of(target, row.candidate)
    # only ONNX Runtime is emulated
    ours = row.candidate.runtime is Runtime.ONNXRUNTIME and not row.candidate.is_float
    there = row.path is not None and row.audited and not row.shipped
    return place.way is Way.EMULATED and ours and there


def emulate_refused(
    bench: Bench, target: TargetSpec, rows: tuple[Row, ...], emulator: Emulator
) -> tuple[Row, ...]:
    """Say at least how accurate quantised candidates are that can not be timed here.

    Args:
        bench: what was found out.
        target: whose rows.
        rows: all of them, in order.
        emulator: of that target; what is left of its time is divided among those it can run.
    """
    waiting = sum(is_unseen(bench, target, row) for row in rows)
    seen = []
    for row in rows:
        if is_unseen(bench, target, row):
            seen.append(_emulate(bench, row, emulator, 1 / waiting))
            waiting -= 1
        else:
            seen.append(row)
    return tuple(seen)


def _emulate(bench: Bench, row: Row, emulator: Emulator, share: float) -> Row:
    assert row.path is not None  # noqa: S101 - it is unseen, so there is a file
    if (reason := emulator.unavailable) is not None:
        return replace(row, why="; ".join(filter(None, (row.why, reason))))
    native_fp32 = EngineRunner(bench.files[FP32], REFERENCE.session)
    answered = emulator.answers(
        row.path, bench.split.certification, native_fp32, bench.metric, share=share
    )
    if answered is None:
        return replace(row, why=f"{row.why}; nothing was answered in time (--emulation-budget-s)")
    answers, certified_on = answered
    judged = judge(
        bench.reference,
        answers,
        bench.metric,
        bench.request,
        risk=Risk(1 - bench.request.confidence, 1),
        certified_on=certified_on,
    )
    why = row.why if judged.mark is Mark.PASS else judged.why
    if judged.mark is Mark.INCONCLUSIVE:
        why = f"{why}, which takes more time (--emulation-budget-s); {row.why}"
    return replace(row, mark=judged.mark, accuracy=judged.accuracy, why=why)
