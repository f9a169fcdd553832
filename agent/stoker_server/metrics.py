"""The same counts in two forms: Prometheus text, and the statistics of the protocol."""

from collections.abc import Iterator
from typing import Any, Final

from stoker_contract.histogram import BUCKETS_PER_OCTAVE, Histogram, quantile_ms
from stoker_server.dataplane import DataPlane
from stoker_server.slot import Slot
from stoker_server.stats import Stats

_NS_PER_S: Final = 1_000_000_000
# Every second octave from 32 µs to 34 s: Prometheus wants few buckets, ours are merged exactly.
_EDGES: Final = tuple(range(15, 36, 2))


def model_stats(slot: Slot) -> list[dict[str, Any]]:
    """Statistics of one slot, one entry per artifact that served, oldest first."""
    return [
        {
            "name": slot.name,
            "version": stats.release.rpartition("/")[2],
            "digest": stats.digest,
            "active": slot.active is not None and slot.active.stats is stats,
            "inference_count": stats.requests - stats.errors,
            "execution_count": stats.requests - stats.errors,
            "inference_stats": {
                "success": _duration(stats.requests - stats.errors, stats.total),
                "fail": {"count": stats.errors, "ns": 0},
                "queue": _duration(stats.requests - stats.errors, stats.queue),
                "compute_infer": _duration(stats.requests - stats.errors, stats.compute),
            },
            "latency_ms": {
                name: {f"p{q * 100:g}": quantile_ms(histogram.data(), q) for q in (0.5, 0.95, 0.99)}
                for name, histogram in _histograms(stats)
            },
            "errors": {str(code): count for code, count in stats.faults.items()},
            "refused": {str(code): count for code, count in stats.refused.items()},
            "restarts": stats.restarts,
        }
        for stats in slot.stats
    ]


def prometheus(plane: DataPlane) -> str:
    """All counts in the Prometheus text format."""
    lines = [*_connections(plane), *_slots(plane), *_engines(plane), *_latencies(plane), ""]
    return "\n".join(lines)


def _connections(plane: DataPlane) -> Iterator[str]:
    name = "stoker_slow_clients_total"
    yield from _head(name, "counter", "Connections dropped for what did not arrive in time.")
    for part, count in plane.slow_clients.items():
        yield f'{name}{{part="{part}"}} {count}'


def _slots(plane: DataPlane) -> Iterator[str]:
    yield from _head("stoker_slot_ready", "gauge", "Whether an engine serves the slot.")
    for slot in plane.slots.values():
        yield f'stoker_slot_ready{{slot="{slot.name}"}} {int(slot.ready)}'
    yield from _head("stoker_slot_degraded", "gauge", "Whether something else serves than should.")
    for slot in plane.slots.values():
        yield f'stoker_slot_degraded{{slot="{slot.name}"}} {int(slot.trouble is not None)}'
    yield from _head("stoker_slot_requests_in_flight", "gauge", "Requests admitted, not answered.")
    for slot in plane.slots.values():
        yield f'stoker_slot_requests_in_flight{{slot="{slot.name}"}} {slot.admitted}'


def _engines(plane: DataPlane) -> Iterator[str]:
    everything = [stats for slot in plane.slots.values() for stats in slot.stats]
    yield from _head("stoker_requests_total", "counter", "Requests that reached an engine.")
    for stats in everything:
        yield f"stoker_requests_total{{{_labels(stats)}}} {stats.requests}"
    yield from _head("stoker_errors_total", "counter", "Requests that the engine failed.")
    for stats in everything:
        for code, count in stats.faults.items():
            yield f'stoker_errors_total{{{_labels(stats)},code="{code}"}} {count}'
    yield from _head("stoker_refused_total", "counter", "Requests refused before an engine.")
    for stats in everything:
        for code, count in stats.refused.items():
            yield f'stoker_refused_total{{{_labels(stats)},code="{code}"}} {count}'
    yield from _head("stoker_engine_restarts_total", "counter", "Restarts after a crash.")
    for stats in everything:
        yield f"stoker_engine_restarts_total{{{_labels(stats)}}} {stats.restarts}"


def _latencies(plane: DataPlane) -> Iterator[str]:
    name = "stoker_request_seconds"
    yield from _head(name, "histogram", "Time of a request: queue, compute, total.")
    for slot in plane.slots.values():
        for stats in slot.stats:
            for phase, histogram in _histograms(stats):
                yield from _buckets(f'{_labels(stats)},phase="{phase}"', histogram)


def _buckets(labels: str, histogram: Histogram) -> Iterator[str]:
    data = histogram.data()
    for exponent in _EDGES:
        edge = exponent * BUCKETS_PER_OCTAVE  # buckets below this index end at 2**exponent ns
        below = data.zero + sum(data.counts[: max(edge - data.offset, 0)])
        seconds = 2**exponent / _NS_PER_S
        yield f'stoker_request_seconds_bucket{{{labels},le="{seconds:g}"}} {below}'
    yield f'stoker_request_seconds_bucket{{{labels},le="+Inf"}} {data.count}'
    yield f"stoker_request_seconds_sum{{{labels}}} {data.sum_ns / _NS_PER_S:g}"
    yield f"stoker_request_seconds_count{{{labels}}} {data.count}"


def _histograms(stats: Stats) -> tuple[tuple[str, Histogram], ...]:
    return ("queue", stats.queue), ("compute", stats.compute), ("total", stats.total)


def _duration(count: int, histogram: Histogram) -> dict[str, int]:
    return {"count": count, "ns": histogram.sum_ns}


def _labels(stats: Stats) -> str:
    release = stats.release.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'slot="{stats.slot}",release="{release}",digest="{stats.digest[:12]}"'


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
