"""Two releases that are signed and wrong: one is refused before the swap, one rolled back after."""

import time
from typing import Final

from stoker_cli.demo.show import MODEL, Show
from stoker_cli.demo.traffic import Traffic
from stoker_cli.demo.updates import SECOND
from stoker_cli.demo.variants import remake, slow_on_hot_pixels, swap_labels
from stoker_contract.codes import Outcome, ReasonCode

WRONG: Final = "3.0.0"
SLOW: Final = "4.0.0"
MAX_P99_RATIO: Final = 2.0
# Of a loop that costs a third of a millisecond each time on a small core. One frame in nine takes
# it, so the device is not overloaded: it is slow for some, which only a percentile shows.
_TRIPS: Final = 600


def refuse_swapped_labels(show: Show, traffic: Traffic) -> None:
    """A release whose labels are swapped passes every signature and no golden set."""
    show.narrator.step(f"Roll out {MODEL}/{WRONG}: properly signed, but its labels are swapped")
    remake(show.release(SECOND), show.release(WRONG), version=WRONG, counter=3, edit=swap_labels)
    show.publish(WRONG)
    start_ns = time.monotonic_ns()
    results = show.finish_rollout(show.start_rollout(WRONG, "all"))
    window = traffic.window(start_ns)
    refused = [
        result
        for result in results
        if result.outcome is Outcome.FAILED_NO_CHANGE and result.code == ReasonCode.GOLDEN_FAIL
    ]
    scores = [r.measured.golden_score for r in refused if r.measured.golden_score is not None]
    measured = f"{len(refused)} of {len(results)} devices: GOLDEN_FAIL"
    if scores:
        measured += f", {max(scores):.0%} of the golden answers were right"
    show.promise(
        "golden sets refuse a model that is wrong, before it serves",
        measured,
        held=bool(results) and len(refused) == len(results),
    )
    show.promise(
        "nothing changes for applications",
        f"{len(window.failed)} of {len(window.answers)} failed, all answered by "
        f"{', '.join(window.releases)}",
        held=not window.failed and window.releases == (f"{MODEL}/{SECOND}",),
    )


def roll_back_slow(show: Show, traffic: Traffic) -> None:
    """A release that is slow on what the camera really sends is rolled back by its probation."""
    device = show.first
    show.narrator.step(f"Roll out {MODEL}/{SLOW} to {device.name}: right, but slow on some frames")
    edit = slow_on_hot_pixels(_TRIPS)
    remake(show.release(SECOND), show.release(SLOW), version=SLOW, counter=4, edit=edit)
    show.publish(SLOW)
    start_ns = time.monotonic_ns()
    ratio = {"probation-max-p99-ratio": MAX_P99_RATIO}
    results = show.finish_rollout(show.start_rollout(SLOW, device.name, ratio))
    done_ns = time.monotonic_ns()
    result = results[0]
    told = result.measured
    live = ""
    if told.p99_before_ms is not None and told.p99_after_ms is not None:
        live = f", live p99 {told.p99_before_ms:.1f} → {told.p99_after_ms:.1f} ms"
    show.promise(
        "probation rolls back a model that is slow on live traffic",
        f"{result.outcome} {result.code}{live}",
        held=result.outcome is Outcome.ROLLED_BACK and result.code == ReasonCode.PROBATION_LATENCY,
    )
    window = traffic.window(start_ns)
    after = traffic.window(done_ns - 1_000_000_000)
    show.promise(
        "no request is lost on the way there and back",
        f"{len(window.failed)} of {len(window.answers)} failed, in the end answered by "
        f"{', '.join(after.releases[-1:])}",
        held=bool(window.answers)
        and not window.failed
        and after.releases[-1:] == (f"{MODEL}/{SECOND}",),
    )
