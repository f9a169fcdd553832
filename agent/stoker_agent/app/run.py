"""One deployment while it runs: its record, and what the shell may take for it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stoker_agent.core.record import Progress, Record, SlotPlan
from stoker_agent.core.report import Cause, with_cause, with_measured
from stoker_contract.codes import ReasonCode
from stoker_contract.status import Phase


@dataclass(frozen=True, slots=True)
class Tuning:
    """How long things may take. Tests make it small.

    Attributes:
        deadlines_s: by phase, on the monotonic clock; a phase that is absent ends by itself.
        memory_margin_bytes: kept free beside the load peak of a candidate.
        server_lost_s: a server that is silent for so long on probation has lost the candidate.
    """

    poll_s: float = 1.0
    progress_s: float = 2.0
    load_timeout_s: float = 120.0
    warm_timeout_s: float = 120.0
    golden_timeout_s: float = 240.0
    memory_margin_bytes: int = 128 * 1024**2
    server_lost_s: float = 300.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 300.0
    deadlines_s: Mapping[Phase, float] = field(
        default_factory=lambda: {
            Phase.ACCEPTED: 60.0,
            Phase.VERIFYING: 600.0,
            Phase.PREFLIGHT: 60.0,
            Phase.LOADING: 150.0,
            Phase.WARMING: 150.0,
            Phase.GOLDEN: 300.0,
            Phase.SWAPPING: 60.0,
            Phase.ROLLING_BACK: 300.0,
        }
    )


POLICY_PHASES: Final = frozenset({Phase.DOWNLOADING, Phase.STAGED})
"""Phases whose deadline is the deployment's own ``deadline_s``."""


@dataclass(slots=True)
class Run:
    """A deployment on its way.

    Attributes:
        kick: set whenever something happened that may interrupt the current effect.
        waits_for: what to blame if the deadline comes now; None blames the phase.
    """

    record: Record
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: ReasonCode | None = None

    @property
    def phase(self) -> Phase:
        """Where it is."""
        return self.record.progress.phase

    @property
    def server_id(self) -> str | None:
        """The server process that holds the candidate."""
        return self.record.progress.server_id

    @property
    def plans(self) -> tuple[SlotPlan, ...]:
        """How its slots change."""
        return self.record.progress.plans

    def cause(self, component: str, code: ReasonCode, detail: str, slot: str | None = None) -> None:
        """Note why it failed; only the first cause counts."""
        cause = Cause(self.phase, component, code, detail, slot)
        self.update(with_cause(self.record.progress, cause))

    def measured(self, **figures: float | str | None) -> None:
        """Add figures that were measured."""
        self.update(with_measured(self.record.progress, **figures))

    def held_by(self, server_id: str) -> None:
        """Note which server process will hold the candidate."""
        self.update(self.record.progress.model_copy(update={"server_id": server_id}))

    def planned(self, plans: tuple[SlotPlan, ...]) -> None:
        """Keep the plan."""
        self.update(self.record.progress.model_copy(update={"plans": plans}))

    def update(self, progress: Progress) -> None:
        """Move on."""
        self.record = self.record.model_copy(update={"progress": progress})
