"""A rollout of one wave: who is meant, how far each device is, and when it is over.

Denominators are counted, never assumed: a device that is unreachable or was skipped is neither a
success nor a failure of the release.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.enums import StrEnum
from stoker_contract.status import Phase

GOOD: Final = frozenset({Outcome.SUCCEEDED, Outcome.NOOP})


class RolloutState(StrEnum):
    """Where a rollout is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"  # all are final, and every device that was addressed runs the release
    FAILED = "failed"  # all are final, and some do not run it, or nobody was addressed
    CANCELED = "canceled"  # somebody said so: who had not begun keeps what it had before


@dataclass(frozen=True)
class DeviceProgress:
    """One targeted device of a rollout.

    Attributes:
        skipped: the controller did not address it, and why. It never takes this release.
        generation: of the desired state that was signed for it.
        notified: the broker said that it has the desired state, or the device that it works
            on it: a quick device may be first.
    """

    device: str
    reachable: bool = False
    skipped: ReasonCode | None = None
    generation: int | None = None
    notified: bool = False
    phase: Phase | None = None
    outcome: Outcome | None = None
    code: ReasonCode | None = None
    detail: str = ""

    @property
    def started(self) -> bool:
        """The device said that it works on it."""
        return self.phase is not None

    @property
    def final(self) -> bool:
        """Nothing more will happen to this device in this rollout."""
        return self.outcome is not None or self.skipped is not None

    @property
    def good(self) -> bool:
        """It runs the release."""
        return self.outcome in GOOD


@dataclass(frozen=True)
class Progress:
    """All denominators of a rollout."""

    targeted: int = 0
    reachable: int = 0
    skipped: int = 0
    notified: int = 0
    started: int = 0
    final: int = 0
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)


def measure(devices: Iterable[DeviceProgress]) -> Progress:
    """Count how far a rollout is."""
    listed = tuple(devices)
    return Progress(
        targeted=len(listed),
        reachable=sum(device.reachable for device in listed),
        skipped=sum(device.skipped is not None for device in listed),
        notified=sum(device.notified for device in listed),
        started=sum(device.started for device in listed),
        final=sum(device.final for device in listed),
        outcomes=dict(Counter(d.outcome for d in listed if d.outcome is not None)),
    )


def state_of(devices: Iterable[DeviceProgress]) -> RolloutState:
    """Say where a rollout is. One that addresses nobody has failed: nothing was shown."""
    listed = tuple(devices)
    if not all(device.final for device in listed):
        return RolloutState.RUNNING
    addressed = [device for device in listed if device.skipped is None]
    good = bool(addressed) and all(device.good for device in addressed)
    return RolloutState.SUCCEEDED if good else RolloutState.FAILED
