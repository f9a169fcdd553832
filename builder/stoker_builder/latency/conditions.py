"""What the machine did while it was measured, and whether the figures may be quoted.

A figure taken on a processor that slows down for heat, or beside a neighbour, is a figure about
the heat or the neighbour. The machine is looked at before every round: its thermal counters and
frequencies where it tells them, and always how long a fixed piece of work takes, which no
virtual machine can hide.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_BUSY_SHARE: Final = 0.2
MAX_SPIN_DRIFT: Final = 0.15
_SYSFS: Final = Path("/sys")
_WORK: Final = bytes(256 * 1024)
_REPEATS: Final = 8
_STRETCHES: Final = 5
_PLAUSIBLE_C: Final = (1.0, 150.0)


@dataclass(frozen=True, slots=True)
class Look:
    """The machine at one moment. What it does not tell is None.

    Attributes:
        spin_ms: the fastest of a few repetitions of a fixed piece of work, so that being
            interrupted does not count and a slower clock does.
        throttle_events: of all cores, since the machine was started.
        frequency_mhz: mean of the cores.
    """

    spin_ms: float
    throttle_events: int | None = None
    temperature_c: float | None = None
    frequency_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is to be known before a figure is quoted.

    Attributes:
        busy_share: share of the samples taken while other processes used the processor.
        spin_drift: how much longer the fixed work took in the slowest stretch of the run than
            in the fastest, as a share; None when the machine was not watched.
        temperature_c: the highest that was seen.
        frequency_mhz: the lowest and the highest that were seen.
        refusals: why the figures must not be quoted; empty when they may.
    """

    busy_share: float = 0.0
    spin_drift: float | None = None
    throttle_events: int | None = None
    temperature_c: float | None = None
    frequency_mhz: tuple[float, float] | None = None
    governor: str | None = None
    refusals: tuple[str, ...] = ()

    @property
    def quotable(self) -> bool:
        """Whether the figures say something about the model."""
        return not self.refusals


class MachineWatch:
    """Looks at the machine again and again; hand :meth:`look` to ``measure`` as ``each_round``."""

    def __init__(self, look: Callable[[], Look] | None = None) -> None:
        self._look = look or look_at_machine
        self._looks: list[Look] = []

    def look(self) -> None:
        """Look once."""
        self._looks.append(self._look())

    def conditions(self, busy_share: float) -> Conditions:
        """Judge what was seen so far.

        Args:
            busy_share: share of the samples that were taken while others were busy.
        """
        return judge_looks(self._looks, busy_share=busy_share, governor=_governor())


def judge_looks(
    looks: Sequence[Look], *, busy_share: float, governor: str | None = None
) -> Conditions:
    """Judge a run by what was seen during it. Pure."""
    drift = _drift([look.spin_ms for look in looks])
    events = _rise([look.throttle_events for look in looks])
    refusals = []
    if busy_share >= MAX_BUSY_SHARE:
        refusals.append(f"this machine was busy for {busy_share:.0%} of the timing")
    if events:
        refusals.append(f"the processor slowed down for heat {events} times")
    if drift is not None and drift > MAX_SPIN_DRIFT:
        refusals.append(
            f"a fixed piece of work took up to {drift:.0%} longer than at its fastest:"
            " the clock changed, or a neighbour did"
        )
    frequencies = [look.frequency_mhz for look in looks if look.frequency_mhz is not None]
    temperatures = [look.temperature_c for look in looks if look.temperature_c is not None]
    return Conditions(
        busy_share=busy_share,
        spin_drift=drift,
        throttle_events=events,
        temperature_c=max(temperatures, default=None),
        frequency_mhz=(min(frequencies), max(frequencies)) if frequencies else None,
        governor=governor,
        refusals=tuple(refusals),
    )


def look_at_machine(sysfs: Path = _SYSFS) -> Look:
    """Look at this machine, which takes a few milliseconds.

    Args:
        sysfs: where the kernel tells about it.
    """
    cores = sysfs / "devices" / "system" / "cpu"
    events = _numbers(cores.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    khz = _numbers(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    zones = _numbers((sysfs / "class" / "thermal").glob("thermal_zone*/temp"))
    low_c, high_c = _PLAUSIBLE_C
    celsius = [zone / 1000 for zone in zones if low_c <= zone / 1000 <= high_c]
    return Look(
        spin_ms=_spin_ms(),
        throttle_events=sum(events) if events else None,
        temperature_c=max(celsius, default=None),
        frequency_mhz=sum(khz) / len(khz) / 1000 if khz else None,
    )


def _spin_ms() -> float:
    fastest_ns = min(_timed_work_ns() for _ in range(_REPEATS))
    return fastest_ns / 1e6


def _timed_work_ns() -> int:
    began = time.perf_counter_ns()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter_ns() - began


def _drift(spins_ms: Sequence[float]) -> float | None:
    if len(spins_ms) < 2:  # noqa: PLR2004  a drift is between two
        return None
    length = max(1, len(spins_ms) // _STRETCHES)
    stretches = [spins_ms[at : at + length] for at in range(0, len(spins_ms), length)]
    fastest = [min(stretch) for stretch in stretches]
    return max(fastest) / min(fastest) - 1


def _rise(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(0, known[-1] - known[0]) if known else None


def _governor(sysfs: Path = _SYSFS) -> str | None:
    try:
        path = sysfs / "devices" / "system" / "cpu" / "cpu0" / "cpufreq" / "scaling_governor"
        return path.read_text(encoding="ascii", errors="replace").strip()[:64] or None
    except OSError:
        return None


def _numbers(paths: Iterable[Path]) -> list[int]:
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:  # a zone that is switched off can not be read
            continue
        if text.lstrip("-").isdigit():
            found.append(int(text))
    return found
