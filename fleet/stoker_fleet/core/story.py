"""The events of one deployment on one device, told as one story, whatever order they came in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.status import Measured, Phase, StatusEvent


@dataclass(frozen=True)
class Story:
    """How far a deployment is, or how it ended.

    Attributes:
        measured: all figures of all events; of one figure the newest counts.
    """

    phase: Phase
    progress: float | None
    outcome: Outcome | None
    code: ReasonCode | None
    detail: str
    measured: Measured


def tell(events: Iterable[StatusEvent]) -> Story:
    """Order the events by (epoch, seq) and sum them up. There has to be at least one.

    The first final event is the end: what a device says afterwards can not undo it.
    """
    ordered = sorted(events, key=lambda event: (event.epoch, event.seq))
    last = next((event for event in ordered if event.final), ordered[-1])
    figures: dict[str, Any] = {}
    for event in ordered:
        figures.update(event.measured.to_object())
    return Story(
        phase=last.phase,
        progress=last.progress,
        outcome=last.outcome,
        code=last.code,
        detail=last.detail,
        measured=Measured.model_validate(figures),
    )
