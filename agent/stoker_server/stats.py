"""What is counted about requests: one record per slot and digest, on every request."""

from collections import Counter
from dataclasses import dataclass, field

from stoker_contract.codes import ReasonCode
from stoker_contract.histogram import Histogram
from stoker_contract.telemetry import LatencyWindow

# What speaks against the engine; everything else is refused at the door or the caller's fault.
ENGINE_FAULTS = frozenset(
    {
        ReasonCode.RUN_ERROR,
        ReasonCode.RUN_TIMEOUT,
        ReasonCode.ENGINE_CRASHED,
        ReasonCode.MEMORY,
        ReasonCode.DEADLINE,
    }
)


@dataclass(slots=True)
class Stats:
    """Counts of one artifact in one slot since the server started."""

    slot: str
    digest: str
    release: str
    queue: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    requests: int = 0
    faults: Counter[ReasonCode] = field(default_factory=Counter)
    refused: Counter[ReasonCode] = field(default_factory=Counter)
    restarts: int = 0

    @property
    def errors(self) -> int:
        """Requests that the engine failed."""
        return self.faults.total()

    def answered(self, queue_ns: int, compute_ns: int, total_ns: int) -> None:
        """Count a request that was answered."""
        self.requests += 1
        self.queue.record(queue_ns)
        self.compute.record(compute_ns)
        self.total.record(total_ns)

    def failed(self, code: ReasonCode, total_ns: int, *, dispatched: bool) -> None:
        """Count a request that was not: against the engine, or as a refusal."""
        if dispatched and code in ENGINE_FAULTS:
            self.requests += 1
            self.faults[code] += 1
            self.total.record(total_ns)
        else:
            self.refused[code] += 1

    def window(self) -> LatencyWindow:
        """Everything counted so far."""
        return LatencyWindow(
            slot=self.slot,
            digest=self.digest,
            release=self.release,
            queue=self.queue.data(),
            compute=self.compute.data(),
            total=self.total.data(),
            requests=self.requests,
            errors=self.errors,
            refused=self.refused.total(),
        )
