"""Latency at a rate: requests come when they come, however long the last one takes.

A caller that waits for each answer before it asks again sends less when the server is slow,
and so hides what users feel (coordinated omission). Here arrivals are drawn beforehand, and a
request's latency counts from the moment it was due, so waiting for a free caller is part of it.
"""

import heapq
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from stoker_builder.latency.stats import Burst, LatencyStats, summarise

Arrivals = Literal["poisson", "even"]

_BEHIND_SHARE: Final = 0.05  # of the run: beyond it the queue only grows


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What came of offering requests at a rate.

    Attributes:
        offered_per_s: as it was asked for.
        answered_per_s: until the last answer.
        response: from the moment a request was due to its answer.
        service: from when it was sent to its answer.
        wait: from the moment it was due to when it was sent.
        failed: requests that were answered with an error; they have no latency.
        unanswered: requests that were due and never sent, since time ran out.
        saturated: it could not keep up: the latencies would only have grown.
    """

    offered_per_s: float
    answered_per_s: float
    response: LatencyStats
    service: LatencyStats
    wait: LatencyStats
    failed: int
    unanswered: int
    saturated: bool


def arrivals_s(
    rate_per_s: float, seconds: float, *, kind: Arrivals = "poisson", rng: random.Random
) -> list[float]:
    """Draw when requests are due, from 0 on. At least one is."""
    due: list[float] = []
    at = 0.0
    while at < seconds or not due:
        due.append(at)
        at += rng.expovariate(rate_per_s) if kind == "poisson" else 1 / rate_per_s
    return due


@dataclass(frozen=True, slots=True)
class _Answered:
    due_ns: int
    sent_ns: int
    ended_ns: int
    ok: bool


def offer(  # noqa: PLR0913  the load, and what to stop at
    callers: Sequence[Callable[[], object]],
    *,
    rate_per_s: float,
    seconds: float,
    kind: Arrivals = "poisson",
    drain_s: float = 5.0,
    rng: random.Random | None = None,
    expected: type[Exception] | tuple[type[Exception], ...] = (),
) -> OpenLoop:
    """Offer requests at a rate.

    Args:
        callers: each sends one request at a time; due requests wait for a free one.
        rate_per_s: how many come in a second.
        seconds: how long they come.
        kind: whether they come at random, as independent users do, or evenly.
        drain_s: how long after that the last ones may still be sent.
        rng: draws the arrivals.
        expected: errors of a caller that count as a failed request; others end the run.

    Raises:
        ValueError: there is no caller, no rate, or nothing was answered at all.
    """
    if not callers or rate_per_s <= 0:
        msg = "an open loop needs callers and a rate"
        raise ValueError(msg)
    rng = rng or random.Random(0)  # noqa: S311  arrivals, not a secret
    due = arrivals_s(rate_per_s, seconds, kind=kind, rng=rng)
    queue = _Queue(due, give_up_s=seconds + drain_s)
    threads = [
        threading.Thread(target=queue.serve, args=(caller, expected), name=f"caller {number}")
        for number, caller in enumerate(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if queue.failure is not None:
        raise queue.failure
    return _summary(queue.answered, due, rate_per_s, seconds)


def pooled(loops: Sequence[OpenLoop]) -> OpenLoop:
    """Several runs at one rate as one.

    Raises:
        ValueError: there is none.
    """
    if not loops:
        msg = "nothing was measured"
        raise ValueError(msg)
    return OpenLoop(
        offered_per_s=loops[0].offered_per_s,
        answered_per_s=sum(loop.answered_per_s for loop in loops) / len(loops),
        response=_pooled([loop.response for loop in loops]),
        service=_pooled([loop.service for loop in loops]),
        wait=_pooled([loop.wait for loop in loops]),
        failed=sum(loop.failed for loop in loops),
        unanswered=sum(loop.unanswered for loop in loops),
        saturated=any(loop.saturated for loop in loops),
    )


def _pooled(stats: Sequence[LatencyStats]) -> LatencyStats:
    return summarise([Burst(tuple(int(ms * 1e6) for ms in one.samples_ms)) for one in stats])


class _Queue:
    """Requests in the order they are due, taken by whichever caller is free."""

    def __init__(self, due_s: Sequence[float], *, give_up_s: float) -> None:
        self._start_ns = time.perf_counter_ns()
        self._due_ns = [self._start_ns + int(at * 1e9) for at in due_s]
        heapq.heapify(self._due_ns)
        self._give_up_ns = self._start_ns + int(give_up_s * 1e9)
        self._lock = threading.Lock()
        self.answered: list[_Answered] = []
        self.failure: Exception | None = None

    def serve(
        self,
        call: Callable[[], object],
        expected: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        while (due_ns := self._take()) is not None:
            time.sleep(max(due_ns - time.perf_counter_ns(), 0) / 1e9)
            sent_ns = time.perf_counter_ns()
            try:
                call()
            except expected:
                self._note(due_ns, sent_ns, ok=False)
            except Exception as error:  # noqa: BLE001  handed to whoever waits for the threads
                self.failure = error
                return
            else:
                self._note(due_ns, sent_ns, ok=True)

    def _take(self) -> int | None:
        with self._lock:
            late = time.perf_counter_ns() > self._give_up_ns
            if not self._due_ns or late or self.failure is not None:
                return None
            return heapq.heappop(self._due_ns)

    def _note(self, due_ns: int, sent_ns: int, *, ok: bool) -> None:
        answer = _Answered(due_ns, sent_ns, time.perf_counter_ns(), ok)
        with self._lock:
            self.answered.append(answer)


def _summary(
    answered: Sequence[_Answered], due_s: Sequence[float], rate_per_s: float, seconds: float
) -> OpenLoop:
    good = sorted((one for one in answered if one.ok), key=lambda one: one.due_ns)
    if not good:
        msg = "no request was answered"
        raise ValueError(msg)
    began_ns = min(one.due_ns for one in answered)
    took_s = max((max(one.ended_ns for one in answered) - began_ns) / 1e9, 1e-9)
    waits_ns = [one.sent_ns - one.due_ns for one in good]
    unanswered = len(due_s) - len(answered)
    behind_s = waits_ns[-1] / 1e9
    return OpenLoop(
        offered_per_s=rate_per_s,
        answered_per_s=len(good) / max(took_s, seconds),
        response=_stats([one.ended_ns - one.due_ns for one in good]),
        service=_stats([one.ended_ns - one.sent_ns for one in good]),
        wait=_stats(waits_ns),
        failed=len(answered) - len(good),
        unanswered=unanswered,
        saturated=unanswered > 0 or behind_s > _BEHIND_SHARE * seconds,
    )


def _stats(samples_ns: Sequence[int]) -> LatencyStats:
    return summarise([Burst(tuple(max(sample, 0) for sample in samples_ns))])
