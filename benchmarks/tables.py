"""What a benchmark writes: figures as JSON, and the same figures as a table for people."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from stoker_builder.latency.stats import LatencyStats
from stoker_contract.histogram import NS_PER_MS, Histogram

NAMES: Final = {
    "eager": "PyTorch eager, as it comes",
    "eager-tuned": "PyTorch eager, allocator tuned",
    "fp32-unoptimised": "ONNX Runtime FP32, graph not optimised",
    "fp32": "ONNX Runtime FP32",
    "shipped": "**what stoker ships**",
    "int8-pertensor": "INT8, one scale per tensor",
}
_LATENCY_COLUMNS: Final = (
    "",
    "p50 ms",
    "p95 ms",
    "p99 ms (95 % bound)",
    "samples",
    "beside busy neighbours",
    "shipped is faster by",
)
_ACCURACY_COLUMNS: Final = (
    "",
    "top-1",
    "FP32",
    "loss (bound), points",
    "same answer as FP32",
    "verdict",
)
_DIGITS: Final = 4  # of a millisecond: a tenth of a microsecond is below any clock's worth


def stats_object(stats: LatencyStats) -> dict[str, Any]:
    """Return a variant's figures, its bursts and its histogram; not each single sample."""
    figures = asdict(stats)
    del figures["samples_ms"]
    histogram = Histogram.of(int(ms * NS_PER_MS) for ms in stats.samples_ms)
    return {**_rounded(figures), "histogram": histogram.data().to_object()}


def markdown(result: Mapping[str, Any]) -> str:
    """Write the tables of a result."""
    gains, accuracy = result["speedup_of_shipped"], result["accuracy"]
    artifact = result["artifact"]
    lines = [
        f"# {result['benchmark']}: {result['summary']}",
        "",
        (
            f"{result['measured_at'][:10]}; one thread, batch 1, variants interleaved. "
            f"Shipped: {artifact['precision']} ({artifact['recipe']}), "
            f"{artifact['length'] / 1e6:.1f} MB{_in_runtime(artifact)}, "
            f"for {artifact['target']}."
        ),
        "",
        f"| {' | '.join(_LATENCY_COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, stats in result["latency"].items():
        lines.append(
            f"| {NAMES[name]} | {stats['p50_ms']:.2f} | {stats['p95_ms']:.2f} "
            f"| {stats['p99_ms']:.2f} ({_bound(stats['p99_bounds']['high_ms'])}) "
            f"| {stats['samples']} | {stats['contaminated_share']:.0%} | {_gain(gains.get(name))} |"
        )
    lines += [
        "",
        f"Accuracy: {result['data']['note']}.",
        "",
        f"| {' | '.join(_ACCURACY_COLUMNS)} |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, entry in accuracy.items():
        lines.append(
            f"| {NAMES[name]} | {entry['candidate']:.2%} | {entry['reference']:.2%} "
            f"| {100 * entry['loss']:+.2f} ({100 * entry['loss_bound']:+.2f}) "
            f"| {entry['agreement']:.2%} | {entry['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def _gain(gain: Mapping[str, float | None] | None) -> str:
    if gain is None:
        return ""
    low, high = gain["low"], gain["high"]
    between = f" ({low:.1f} to {high:.1f})" if low is not None and high is not None else ""
    return f"{gain['ratio']:.1f}x{between}"


def _bound(high_ms: float | None) -> str:
    return "no bound" if high_ms is None else f"{high_ms:.2f}"


def _in_runtime(artifact: Mapping[str, Any]) -> str:
    # older results were all ONNX Runtime's, and do not say so
    return f" in {artifact['runtime']}" if "runtime" in artifact else ""


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    match value:
        case float():
            return round(value, _DIGITS)
        case dict():
            return {key: _rounded(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_rounded(entry) for entry in value]
        case _:
            return value
