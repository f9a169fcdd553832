"""What the steps of the demo share: the lab, the narrator, the scorecard and the releases."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stoker_cli.demo.lab import Device, Lab
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.promises import Scorecard
from stoker_contract.codes import Outcome
from stoker_contract.status import Measured

SLOT: Final = "camera"
MODEL: Final = "photos"
ROLLOUT_TIMEOUT_S: Final = 120.0
# Little of each, since somebody is watching; the defaults are meant for a fleet.
LATENCY_SAMPLES: Final = 60
PROBATION_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    device_count: int = 3
    photos: Path | None = None
    rate_hz: float = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a rollout ended on one device."""

    device: str
    outcome: Outcome | None
    code: str
    detail: str
    measured: Measured


@dataclass(slots=True)
class Show:
    """One run of the demo."""

    lab: Lab
    narrator: Narrator
    options: Options
    scorecard: Scorecard = field(default_factory=Scorecard)

    @property
    def first(self) -> Device:
        """The device that the load is sent to."""
        return next(iter(self.lab.devices.values()))

    def release(self, version: str) -> Path:
        """The folder of a release of ours."""
        return self.lab.root / "releases" / version

    def promise(self, text: str, measured: str, *, held: bool) -> None:
        """Write a promise down, and say what became of it."""
        self.narrator.promise(self.scorecard.add(text, measured, held=held))

    def stoker(self, *arguments: str, show: bool = False, accept: Sequence[int] = (0,)) -> str:
        """Run a command and show it as one would type it."""
        self.say(*arguments)
        if show:
            return self.lab.stoker(*arguments, show=True, accept=accept)
        with self.narrator.waiting(f"stoker {arguments[0]}"):
            return self.lab.stoker(*arguments, accept=accept)

    def say(self, *arguments: str) -> None:
        """Show a command as one would type it."""
        self.narrator.command(("stoker", *map(self._shortened, arguments)))

    def publish(self, version: str) -> None:
        """Sign a release into the repository."""
        self.narrator.command(("stoker", "publish", self._shortened(str(self.release(version)))))
        self.lab.publish(self.release(version))

    def start_rollout(
        self, version: str, to: str, options: Mapping[str, object] | None = None
    ) -> str:
        """Ask that devices serve a release. Returns the rollout's id."""
        given: dict[str, object] = {
            "slot": SLOT,
            "latency-samples": LATENCY_SAMPLES,
            "probation-s": PROBATION_S,
            "probation-min-samples": 20,
            **(options or {}),
        }
        arguments = [part for key, value in given.items() for part in (f"--{key}", str(value))]
        created = self.stoker(
            "rollout", "create", f"{MODEL}/{version}", "--to", to, *arguments, "--json"
        )
        rollout_id: str = json.loads(created)["rollout_id"]
        return rollout_id

    def finish_rollout(self, rollout_id: str) -> tuple[Result, ...]:
        """Wait until every device is final, and say how each ended."""
        with self.narrator.waiting("the devices verify, prove, swap and watch"):
            told = self.lab.stoker(
                *("rollout", "watch", rollout_id, "--json"),
                *("--timeout-s", str(ROLLOUT_TIMEOUT_S)),
                accept=(0, 1, 3),
            )
        results = tuple(_result(device) for device in json.loads(told)["devices"])
        for result in results:
            words = [result.device, str(result.outcome or "did not come to an end"), result.code]
            figures = _figures(result.measured)
            self.narrator.fact(f"{' '.join(filter(None, words))}{figures}")
        return results

    def _shortened(self, argument: str) -> str:
        for folder, name in ((str(self.lab.root), "."), (str(Path.cwd()), "")):
            if argument.startswith(f"{folder}/"):
                return argument.replace(folder, name, 1).lstrip("/")
        return argument


def _result(device: Mapping[str, Any]) -> Result:
    outcome = device.get("outcome")
    return Result(
        device=device["device"],
        outcome=Outcome(outcome) if outcome else None,
        code=device.get("code") or device.get("skipped") or "",
        detail=device.get("detail", ""),
        measured=Measured.parse_object(device.get("measured", {})),
    )


def _figures(told: Measured) -> str:
    words = []
    if told.golden_score is not None:
        words.append(f"golden {told.golden_score:.0%} of {told.golden_samples or '?'}")
    if told.candidate_p99_ms is not None:
        words.append(f"p99 {told.candidate_p99_ms:.1f} ms")
    if told.active_p99_ms is not None:
        words.append(f"beside {told.active_p99_ms:.1f} ms of the active engine")
    if told.flip_us is not None:
        words.append(f"flip {told.flip_us:.0f} µs")
    if told.p99_before_ms is not None and told.p99_after_ms is not None:
        words.append(f"live p99 {told.p99_before_ms:.1f} → {told.p99_after_ms:.1f} ms")
    if told.confidence:
        words.append(f"confidence {told.confidence}")
    return f": {', '.join(words)}" if words else ""
