"""The result of a benchmark as a document."""

from pydantic import Field

from stoker_builder.report.document import ConditionNotes, Figures, Name
from stoker_contract.document import Document
from stoker_contract.names import Count, PositiveInt


class Versus(Document):
    """How many times faster than the first one, and between which bounds."""

    ratio: float
    low: float | None = None
    high: float | None = None


class AtRate(Document):
    """What came of a rate.

    Attributes:
        service: from sending to the answer; the latency beside it counts from when the request
            was due.
        wait: from when a request was due to when a caller was free to send it.
        unanswered: due, and never sent: time ran out.
        saturated: it could not keep up, so the latency says how long it was asked, no more.
    """

    offered_per_s: float
    answered_per_s: float
    service: Figures
    wait: Figures
    failed: Count
    unanswered: Count
    saturated: bool
    callers: PositiveInt


class Measured(Document):
    """One subject.

    Attributes:
        served: by another process; the network and its queue are part of the latency.
        stable: p99 is known as closely as was asked for.
    """

    name: Name
    runtime: Name
    threads: PositiveInt | None = None
    served: bool = False
    latency: Figures
    stable: bool
    versus_first: Versus | None = None
    at_rate: AtRate | None = None


class BenchResult(Document):
    """All of them, of one interleaved run.

    Attributes:
        quotable: nothing speaks against the figures. A server's neighbours can not be told from
            its own work, so figures of a server are never called so.
    """

    machine: Name
    runtimes: dict[str, str] = Field(default_factory=dict)
    conditions: ConditionNotes
    quotable: bool
    measured: tuple[Measured, ...]
