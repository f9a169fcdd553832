"""Who gets to the certification samples.

The more candidates are certified, the more certain each has to be, and the more samples that
takes. So candidates are told apart on other samples first, and by their speed: of each kind
of device (with OpenVINO, without) the fastest goes on, and the one that lost least of those
that are nearly as fast. FP32 in another runtime always goes on: it is the same arithmetic and
was not chosen from many. So does the fastest in half precision, for the case that all others fail.

What was repaired has seen these samples: it was repaired until it lost little on them. It goes on
like the others, but does not stand in the way of those that were not, and comes after them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stoker_builder.accuracy.certify import Judged, judge
from stoker_builder.accuracy.risk import Risk
from stoker_builder.bench import Bench
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.kernels.places import Place, native
from stoker_builder.latency.candidates import Timings
from stoker_builder.rows import Mark
from stoker_builder.selection import SAME_SPEED
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Precision
from stoker_contract.target import Runtime

NEARLY_AS_FAST = 1.25
LITTLE = 0.5  # of the budget: what is likely to pass on other samples too
SCREENED_ON = "selection samples"


@dataclass(frozen=True, slots=True)
class Screened:
    """What is known of a candidate before it is certified.

    Attributes:
        p50_ms: where its target's kernels are; None when it was not timed.
        judged: what the selection samples say of it.
        repaired: whether it was made what it is by those samples.
    """

    candidate: Candidate
    p50_ms: float | None
    judged: Judged
    repaired: bool = False

    @property
    def promise(self) -> tuple[bool, bool, float]:
        """Sorts the favourites first: the fastest of those that lost little, then who lost least.

        Certifying in this order spends the risk on what is worth shipping.
        """
        lost = self.judged.accuracy
        if self.p50_ms is None or lost.loss > lost.budget * LITTLE:
            return True, self.repaired, lost.loss
        return False, self.repaired, self.p50_ms

    @property
    def hopeless(self) -> bool:
        """Whether the selection samples alone show that it lost too much."""
        return self.judged.mark is Mark.FAIL


def screened(bench: Bench, target: TargetSpec, candidate: Candidate) -> Screened | None:
    """What the selection samples said; None for what did not answer them."""
    place = bench.place_of(target, candidate)
    answers = bench.screened.get(place, {})
    if candidate == REFERENCE or candidate.name not in answers:
        return None
    judged = judge(
        answers[REFERENCE.name],
        answers[candidate.name],
        bench.metric,
        bench.request,
        risk=Risk(1 - bench.request.confidence, 1),
        certified_on=SCREENED_ON,
    )
    pace = bench.timings.get(place, Timings({})).pace(candidate.name)
    repaired = bench.repair_of(candidate.recipe) is not None
    return Screened(candidate, pace.stats.p50_ms if pace else None, judged, repaired)


def finalists(bench: Bench) -> dict[Place, list[Candidate]]:
    """Whom to certify, and where. The reference answers on this machine in any case."""
    found: dict[Place, list[Candidate]] = {native(): [REFERENCE]}
    for target in bench.targets:
        seen = [screened(bench, target, c) for c in bench.candidates(target)]
        for candidate in choose([s for s in seen if s], everything=_unjudged(bench)):
            place = bench.place_of(target, candidate)
            held = found.setdefault(place, [])
            if candidate not in held:
                held.append(candidate)
    return found


def _unjudged(bench: Bench) -> bool:
    return bench.request.unsafe_skip_gates


def choose(seen: Sequence[Screened], *, everything: bool = False) -> Iterator[Candidate]:
    """Whom of one target's candidates to certify; some are named twice."""
    if everything:
        yield from (s.candidate for s in seen)
        return
    yield from (s.candidate for s in seen if s.candidate.precision is Precision.FP32)
    lower = [s for s in seen if s.candidate.precision is not Precision.FP32 and not s.hopeless]
    # half the precision seldom loses anything: what ships if everything quantised fails
    halves = [s for s in lower if s.candidate.precision is not Precision.INT8]
    yield from islice(_best_of(halves), 1)
    for group in (
        lower,
        [s for s in lower if s.candidate.runtime is Runtime.ONNXRUNTIME],
    ):
        yield from _best_of(group)
        yield from _best_of([s for s in group if not s.repaired])


def _best_of(group: Sequence[Screened]) -> Iterator[Candidate]:
    """The fastest (of equals the first), and the most accurate of the nearly as fast."""
    timed = [(s.p50_ms, s) for s in group if s.p50_ms is not None]
    if not timed:
        return
    least_ms = min(p50_ms for p50_ms, _ in timed)
    yield next(s.candidate for p50_ms, s in timed if p50_ms <= least_ms * SAME_SPEED)
    near = [s for p50_ms, s in timed if p50_ms <= least_ms * NEARLY_AS_FAST]
    yield min(near, key=lambda s: (s.judged.accuracy.loss, s.p50_ms)).candidate
