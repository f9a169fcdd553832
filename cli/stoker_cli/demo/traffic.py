"""The load of the demo as the demo sees it: started, stopped, and read by windows of time."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_cli.demo.lab import Device, Lab
from stoker_contract.histogram import NS_PER_MS

LOAD_MODULE: Final = "stoker_cli.demo.load"


@dataclass(frozen=True, slots=True)
class Frames:
    """What is sent: an ``.npy`` file, first axis the frame, and where it goes."""

    path: Path
    slot: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came of it. Times are of the monotonic clock of this machine."""

    due_ns: int
    total_ns: int
    digest: str = ""
    release: str = ""
    answer: int = -1
    error: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that were due in some time."""

    answers: tuple[Answer, ...]

    @property
    def failed(self) -> tuple[Answer, ...]:
        """Those without an answer."""
        return tuple(answer for answer in self.answers if answer.error)

    @property
    def releases(self) -> tuple[str, ...]:
        """Who answered, in the order of appearance."""
        return tuple(dict.fromkeys(answer.release for answer in self.answers if answer.release))

    def quantile_ms(self, q: float) -> float | None:
        """A percentile of the latency; None without an answer."""
        totals = sorted(answer.total_ns for answer in self.answers if not answer.error)
        if not totals:
            return None
        return totals[min(int(q * len(totals)), len(totals) - 1)] / NS_PER_MS

    def row(self, name: str) -> tuple[str, ...]:
        """Name, requests, failed, p50 and p99 for a table."""
        figures = (self.quantile_ms(0.5), self.quantile_ms(0.99))
        shown = ("-" if figure is None else f"{figure:.1f} ms" for figure in figures)
        return (name, str(len(self.answers)), str(len(self.failed)), *shown)


class Traffic:
    """One client process that sends at a fixed rate to one device."""

    def __init__(self, lab: Lab, device: Device, frames: Frames, *, rate_hz: float) -> None:
        self.frames = frames
        self.rate_hz = rate_hz
        self._out = lab.root / f"load-{device.name}.jsonl"
        self._out.unlink(missing_ok=True)
        self.process = lab.process(
            f"load-{device.name}",
            [
                *(sys.executable, "-m", LOAD_MODULE),
                *("--socket", str(device.inference_socket)),
                *("--slot", frames.slot),
                *("--input", frames.tensor),
                *("--frames", str(frames.path)),
                *("--rate", str(rate_hz)),
                *("--out", str(self._out)),
            ],
        )

    def answers(self) -> list[Answer]:
        """Every request that has come to an end, in the order they were due."""
        if not self._out.exists():
            return []
        whole = self._out.read_text().rpartition("\n")[0]
        found = [Answer(**json.loads(line)) for line in whole.splitlines()]
        return sorted(found, key=lambda answer: answer.due_ns)

    def window(self, start_ns: int, end_ns: int | None = None) -> Window:
        """The requests that were due from ``start_ns`` to ``end_ns``, or until now."""
        end_ns = time.monotonic_ns() if end_ns is None else end_ns
        return Window(tuple(a for a in self.answers() if start_ns <= a.due_ns < end_ns))


def retired_answers(answers: Sequence[Answer], old: str, new: str) -> int:
    """How many requests the old engine answered that were due after the new one had answered one.

    Requests in flight at the flip end on the old engine by design: those were due before.
    """
    ends_ns = [answer.due_ns + answer.total_ns for answer in answers if answer.digest == new]
    if not ends_ns:
        return 0
    flipped_ns = min(ends_ns)
    return sum(answer.digest == old and answer.due_ns > flipped_ns for answer in answers)
