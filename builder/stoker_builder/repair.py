"""Repairing what is fast and lost too much: its worst nodes go back to floating point.

A quantised file that the selection samples refuse is not thrown away at once. Its nodes are
ranked by the damage that each does alone, and more and more of the worst are reverted until the
selection samples have nothing against it. What comes out is a candidate like any other: it is
audited, timed, and certified on samples that took no part in this. One that needs more than
half of its nodes reverted is given up.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stoker_builder.accuracy.certify import judge
from stoker_builder.accuracy.evaluate import Answering, Answers, answer_all
from stoker_builder.accuracy.risk import Risk
from stoker_builder.bench import Bench
from stoker_builder.cache import digest_of_file, identity_of
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.candidates.repairs import Damage, Repair
from stoker_builder.errors import BuildError
from stoker_builder.kernels.engines import EngineChild
from stoker_builder.kernels.places import native
from stoker_builder.kernels.sessions import Session
from stoker_builder.progress import Progress
from stoker_builder.screening import SCREENED_ON, screened
from stoker_contract.manifest import SessionOptions

if TYPE_CHECKING:
    from stoker_builder.candidates.reverting import Reverter

MAX_SHARE: Final = 0.5
_STEP: Final = 1.6  # as many more of the worst are reverted each time


def repair(bench: Bench, progress: Progress) -> bool:
    """Try to mend, for each target, its first static file where all of them lost too much.

    Returns:
        Whether there are new files.

    Raises:
        BuildError: what reading the samples raises.
    """
    for base in dict.fromkeys(_worth_repairing(bench)):
        found = _known(bench, base) or _repaired(bench, base, progress)
        bench.repairs[base] = found
        if found.reverted:
            path = bench.scratch / f"{found.name}.onnx"
            _reverter(bench, base).save(path, found.reverted)
            bench.files[found.name] = path
        else:
            progress.note(f"{base}: half of its nodes in floating point would not be enough")
    return any(found.reverted for found in bench.repairs.values())


def _worth_repairing(bench: Bench) -> Iterator[str]:
    """What lost too much on the selection samples, unless another static file did not.

    The first in the target's order, not the least wrong: how wrong a broken file is says little
    about how many nodes break it.
    """
    for target in bench.targets:
        seen = [
            one
            for candidate in bench.candidates(target)
            if _is_repairable(candidate.recipe)
            and (one := screened(bench, target, candidate)) is not None
        ]
        if seen and all(one.hopeless for one in seen):
            yield seen[0].candidate.recipe


def _is_repairable(name: str) -> bool:
    """Everything that it can quantise is quantised, and it can not overflow where it runs."""
    recipe = RECIPES.get(name)
    return recipe is not None and (
        recipe.corrects_bias != "no"
        and recipe.per_channel
        and not recipe.dynamic
        and not recipe.operators
    )


def _repaired(bench: Bench, base: str, progress: Progress) -> Repair:
    from stoker_builder.candidates.damage import SAMPLES, Damages  # noqa: PLC0415  imports onnx

    reverter = _reverter(bench, base)
    part = bench.split.selection
    inputs = [part[i].inputs for i in range(min(SAMPLES, len(part)))]
    count = len(reverter.nodes)
    with bench.stage(progress, f"find what breaks {base}", count) as stage:
        source = bench.files[FP32]
        damages = Damages(reverter, source, inputs, bench.scratch).ranked(advance=stage.advance)
    steps = list(_sizes(count))
    reverted: tuple[str, ...] = ()
    with bench.stage(progress, f"repair {base}", len(steps)) as stage:
        for size in steps:
            worst = tuple(one.name for one in damages[:size])
            path = bench.scratch / "repaired.onnx"
            reverter.save(path, worst)
            stage.advance()
            if _is_good_enough(bench, path):
                reverted = worst
                break
    found = Repair(base, tuple(damages), reverted)
    bench.cache.keep_value(_key(bench, base), asdict(found))
    return found


def _sizes(count: int) -> Iterator[int]:
    """1, 2, 4, 7, 12, ...: up to half of all."""
    size = 1
    while size <= count * MAX_SHARE:
        yield size
        size = max(size + 1, round(size * _STEP))


def _is_good_enough(bench: Bench, path: Path) -> bool:
    try:
        answers = _answered(bench, path)
    except BuildError:
        return False
    judged = judge(
        answers[FP32],
        answers["repaired"],
        bench.metric,
        bench.request,
        risk=Risk(1 - bench.request.confidence, 1),
        certified_on=SCREENED_ON,
    )
    return judged.accuracy.loss <= judged.accuracy.budget


def _answered(bench: Bench, path: Path) -> dict[str, Answers]:
    fp32 = Session(bench.files[FP32])
    # in a process of its own: optimisers do not see such graphs every day
    with EngineChild(path, SessionOptions(), bench.example, native()) as child:
        files: dict[str, Answering] = {FP32: fp32, "repaired": child}
        return answer_all(files, bench.split.selection, bench.metric)


def _reverter(bench: Bench, base: str) -> "Reverter":
    from stoker_builder.candidates.preparing import prepared  # noqa: PLC0415  heavy tools
    from stoker_builder.candidates.reverting import Reverter  # noqa: PLC0415  imports onnx

    return Reverter(bench.files[base], prepared(bench.source.path, bench.scratch))


def _known(bench: Bench, base: str) -> Repair | None:
    told = bench.cache.value(_key(bench, base))
    if told is None:
        return None
    damages = tuple(Damage(**one) for one in told["damages"])
    return Repair(told["base"], damages, tuple(told["reverted"]))


def _key(bench: Bench, base: str) -> str:
    request = bench.request
    return bench.cache.key(
        "repaired",
        file=digest_of_file(bench.files[base]),
        samples=bench.split.selection.identity,
        metric=identity_of(bench.metric),
        budget=[request.budget, request.relative, request.gate, request.slice_budget],
    )
