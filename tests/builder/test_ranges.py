"""What activations do, observed with little memory, and how a range is chosen from it."""

from pathlib import Path

import numpy as np
import pytest

from stoker_builder.candidates.ranges import BINS, Observed, Observer, entropy, percentile
from stoker_builder.data import Sample, load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import Part, split
from support import models
from support.tiny_build import MODELS


def observed(values: np.ndarray) -> Observed:
    """A histogram of some values."""
    seen = Observed(float(values.min()), float(values.max()))
    seen.count(values)
    return seen


def test_every_activation_is_seen_over_all_samples(tmp_path: Path, tiny_onnx: Path) -> None:
    """The extremes of the output are those that the samples have together."""
    part = split(load_data(f"{MODELS}:dataset")).calibration
    turns: list[int] = []
    observer = Observer(tiny_onnx, part, tmp_path, lambda: turns.append(1))

    ranges = observer.ranges("minmax")

    outputs = [Session(tiny_onnx).run(part[i].inputs)["output"] for i in range(len(part))]
    assert ranges["output"] == pytest.approx((np.min(outputs), np.max(outputs)), rel=1e-4)
    assert len(turns) == len(part)


def test_another_rule_does_not_run_the_first_pass_again(tmp_path: Path, tiny_onnx: Path) -> None:
    """Clipping needs histograms, which take a second run; further rules take none."""
    part = split(load_data(f"{MODELS}:dataset")).calibration
    turns: list[int] = []
    observer = Observer(tiny_onnx, part, tmp_path, lambda: turns.append(1))

    wide = observer.ranges("minmax")
    for how in ("percentile", "entropy"):
        narrow = observer.ranges(how)
        assert all(narrow[name][1] <= wide[name][1] + 1e-6 for name in wide)
    assert len(turns) == len(part)


def test_values_are_counted_as_a_histogram_counts_them() -> None:
    """Single precision may put a value on a border into the neighbouring bin, and no more."""
    values = np.random.default_rng(0).normal(0, 1, (2, 50, 1000)).astype(np.float32)
    seen = Observed(float(values.min()), float(values.max()))

    seen.count(values[0])
    seen.count(values[1])

    assert seen.counts is not None
    assert seen.counts.sum() == values.size
    apart = np.cumsum(seen.counts) - np.cumsum(np.histogram(values, bins=seen.edges())[0])
    assert np.abs(apart).max() <= 2


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_a_constant_is_counted(value: float) -> None:
    """Its bins have no width."""
    seen = observed(np.full(10, value, np.float32))

    assert seen.counts is not None
    assert seen.counts.sum() == 10


@pytest.mark.parametrize("choose", [percentile, entropy])
def test_an_outlier_is_clipped_and_the_rest_is_not(choose: object) -> None:
    """One value in a hundred thousand does not set the scale of all others."""
    values = np.append(np.random.default_rng(0).normal(0, 1, 100_000), 1000.0)

    low, high = choose(observed(values))  # type: ignore[operator]  # one of the two

    assert 2 < high < 200
    assert low <= 0


@pytest.mark.parametrize("choose", [percentile, entropy])
def test_values_that_are_spread_evenly_are_kept(choose: object) -> None:
    """There is nothing to clip in a flat histogram."""
    values = np.random.default_rng(0).uniform(0, 6, 100_000)

    low, high = choose(observed(values))  # type: ignore[operator]  # one of the two

    assert low <= 6 / BINS
    assert high > 5.5


def test_zero_is_always_in_the_range_of_a_percentile() -> None:
    """Padding is zero, and has to be a whole number of steps."""
    values = np.random.default_rng(0).uniform(3, 6, 10_000)

    assert percentile(observed(values))[0] == 0.0


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    """There is no scale for what is not a number."""
    spec = models.not_a_number().put(tmp_path, "m/1.0")
    samples = [Sample({"x": np.ones((1, 4), np.float32)}, None, "one")]
    observer = Observer(Path(spec.path), Part(samples, (0,), ("",)), tmp_path, lambda: None)
    with pytest.raises(BuildError) as caught:
        observer.ranges("minmax")
    assert caught.value.code is BuildCode.QUANTISE
