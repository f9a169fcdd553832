"""Whether figures may be quoted: heat, a clock that changes, neighbours."""

from pathlib import Path

import pytest

from stoker_builder.latency.conditions import Look, MachineWatch, judge_looks, look_at_machine
from stoker_builder.latency.measure import MIN_ROUNDS, BurstRules, measure

QUIET = [Look(spin_ms=1.0) for _ in range(10)]


def sysfs(folder: Path, *, events: int, celsius: str = "55000") -> Path:
    """Files as the kernel writes them, for two cores."""
    files = {
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(events),
        "devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "1",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1600000",
        "class/thermal/thermal_zone0/temp": celsius,
        "class/thermal/thermal_zone1/temp": "-274000",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def test_a_quiet_machine_may_be_quoted() -> None:
    """Nothing happened, so nothing is held against the figures."""
    conditions = judge_looks(QUIET, busy_share=0.01)

    assert conditions.quotable
    assert conditions.spin_drift == 0


def test_a_processor_that_slows_down_for_heat_may_not(tmp_path: Path) -> None:
    """The kernel's own counters are believed, on every core."""
    before = look_at_machine(sysfs(tmp_path, events=3))
    after = look_at_machine(sysfs(tmp_path, events=5))

    conditions = judge_looks([before, after], busy_share=0)

    assert conditions.throttle_events == 2
    assert any("slowed down for heat 2 times" in refusal for refusal in conditions.refusals)


def test_a_clock_that_falls_is_noticed_without_counters() -> None:
    """A virtual machine tells nothing; the same work takes longer all the same."""
    looks = [Look(spin_ms=1.0)] * 8 + [Look(spin_ms=1.4)] * 2

    conditions = judge_looks(looks, busy_share=0)

    assert conditions.spin_drift == pytest.approx(0.4)
    assert "40% longer" in conditions.refusals[0]


def test_one_interruption_is_not_a_change_of_clock() -> None:
    """A single slow look among quick ones says that somebody else ran, not that it is hot."""
    looks = [*QUIET, Look(spin_ms=9.0), *QUIET]

    assert judge_looks(looks, busy_share=0).quotable


def test_a_hopelessly_busy_run_is_refused() -> None:
    """What was taken beside neighbours is about the neighbours."""
    (refusal,) = judge_looks(QUIET, busy_share=0.37).refusals

    assert "busy for 37% of the timing" in refusal


def test_temperature_and_frequency_are_noted_where_they_are_told(tmp_path: Path) -> None:
    """The highest plausible zone and the mean of the cores; nonsense is left out."""
    look = look_at_machine(sysfs(tmp_path, events=0))

    assert look.temperature_c == 55
    assert look.frequency_mhz == 2000


def test_a_machine_that_tells_nothing_is_still_watched(tmp_path: Path) -> None:
    """Without any files there is still the fixed piece of work."""
    look = look_at_machine(tmp_path)

    assert look.spin_ms > 0
    assert look.throttle_events is None


def test_the_machine_is_looked_at_throughout_a_measurement() -> None:
    """Once before each round, and once after the last."""
    looks = 0

    def look() -> Look:
        nonlocal looks
        looks += 1
        return Look(spin_ms=1.0)

    watch = MachineWatch(look)
    rules = BurstRules(samples=1, seconds=0, idle_gap_s=0, warm_up_runs=0, max_other_share=1e9)
    measure({"x": lambda: None}, min_samples=1, rules=rules, each_round=watch.look)

    assert looks == MIN_ROUNDS + 1
    assert watch.conditions(0).quotable
