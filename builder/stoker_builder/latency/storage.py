"""Measured latencies as arrays, so that a build need not measure again what it has measured."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker_builder.latency.candidates import Timings
from stoker_builder.latency.conditions import Conditions
from stoker_builder.latency.stats import LatencyStats, QuantileBounds

_ARRAYS = {"samples_ms", "burst_p50_ms"}
_BOUNDS = {"p50_bounds", "p95_bounds", "p99_bounds"}


def to_arrays(timings: Timings) -> dict[str, NDArray[Any]]:
    """Write one run of measurements."""
    told = {
        "conditions": asdict(timings.conditions),
        "measured_on": timings.measured_on,
        "variants": {name: _figures(stats) for name, stats in timings.stats.items()},
    }
    arrays: dict[str, NDArray[Any]] = {"told": np.array(json.dumps(told))}
    for position, stats in enumerate(timings.stats.values()):
        for name in _ARRAYS:
            arrays[f"{position}.{name}"] = np.asarray(getattr(stats, name), np.float64)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Timings:
    """Read what :func:`to_arrays` wrote.

    Raises:
        KeyError, TypeError, ValueError: it was something else.
    """
    told = json.loads(str(arrays["told"]))
    stats = {}
    for position, (name, figures) in enumerate(told["variants"].items()):
        bounds: dict[str, Any] = {key: QuantileBounds(**figures.pop(key)) for key in _BOUNDS}
        stats[name] = LatencyStats(
            **figures,
            **bounds,
            samples_ms=arrays[f"{position}.samples_ms"],
            burst_p50_ms=tuple(arrays[f"{position}.burst_p50_ms"].tolist()),
        )
    seen = told["conditions"]
    frequency = seen["frequency_mhz"]
    conditions = Conditions(
        **{
            **seen,
            "frequency_mhz": tuple(frequency) if frequency else None,
            "refusals": tuple(seen["refusals"]),
        }
    )
    return Timings(stats, conditions, told["measured_on"])


def _figures(stats: LatencyStats) -> dict[str, Any]:
    names = {field.name for field in fields(stats)} - _ARRAYS
    told = {name: getattr(stats, name) for name in names}
    return {name: asdict(value) if name in _BOUNDS else value for name, value in told.items()}
