"""The staircase from PyTorch eager to what ships, and the distributions behind it. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_builder.report.document import Figures, Report
from stoker_builder.report.html.drawing import (
    LABELS,
    VALUES,
    WIDTH,
    Scale,
    bar,
    figure,
    grid,
    line,
    short,
    table,
    with_figures,
    words,
)
from stoker_builder.report.html.markup import Markup, join, tag
from stoker_builder.report.words import milliseconds, times, title
from stoker_builder.rows import Mark

_ROW: Final = 34.0
_RIDGE: Final = 46.0
_TOP: Final = 8.0
_POINTS: Final = 160
_REFUSED: Final = frozenset({Mark.FAIL, Mark.NOT_FUSED, Mark.INCONCLUSIVE})


@dataclass(frozen=True, slots=True)
class Step:
    """One variant: what it is, how fast, and how it is drawn."""

    name: str
    latency: Figures
    look: str  # a class of the style sheet


def steps_of(report: Report, target: str) -> list[Step]:
    """What was timed for a target with the same instructions, the slowest first."""
    rows = report.rows_of(target)
    places = {row.latency.measured_on for row in rows if row.latency}
    steps = [
        Step(entry.title, entry.latency, "baseline")
        for entry in report.baselines
        if entry.measured_on in places
    ]
    for row in rows:
        if row.latency is not None:
            look = "ships" if row.shipped else "refused" if row.verdict in _REFUSED else "candidate"
            steps.append(Step(title(row), row.latency, look))
    return sorted(steps, key=lambda step: -step.latency.p50_ms)


def staircase(steps: Sequence[Step]) -> Markup:
    """Medians as bars, each with how many times faster than the slowest it is."""
    height = _TOP + len(steps) * _ROW + 44
    slowest = steps[0]
    scale = Scale(0, slowest.latency.p50_ms, LABELS, WIDTH - VALUES)
    bottom = _TOP + len(steps) * _ROW
    drawn = grid(scale, _TOP, bottom, "median, ms")
    for number, step in enumerate(steps):
        drawn += _stair(step, slowest, scale, _TOP + number * _ROW)
    fastest = steps[-1]
    says = (
        f"From {milliseconds(slowest.latency.p50_ms)} ms ({slowest.name}) down to"
        f" {milliseconds(fastest.latency.p50_ms)} ms ({fastest.name})."
    )
    plot = figure(join(drawn), height=height, title="Median latency of each step", says=says)
    return with_figures(plot, _figures(steps))


def _stair(step: Step, slowest: Step, scale: Scale, y: float) -> Iterator[Markup]:
    middle = y + _ROW / 2 + 4
    yield words(short(step.name), LABELS - 10, middle, at="end", class_=f"name {step.look}")
    end = scale(step.latency.p50_ms)
    yield bar(LABELS, y + 6, end - LABELS, _ROW - 12, class_=f"bar {step.look}")
    low, high = step.latency.p50_low_ms, step.latency.p50_high_ms
    if low is not None and high is not None:
        yield line(scale(low), y + _ROW / 2, scale(high), y + _ROW / 2, "whisker")
        end = scale(high)
    ratio = slowest.latency.p50_ms / step.latency.p50_ms if step.latency.p50_ms else 1.0
    value = f"{milliseconds(step.latency.p50_ms)} ms"
    factor = "" if step is slowest else f"  {times(ratio)}"
    shown = tag("tspan", value), tag("tspan", factor, class_="factor")
    yield words(join(shown), max(end, LABELS) + 8, middle, class_="value")


def distributions(steps: Sequence[Step]) -> Markup | None:
    """Where the samples of each variant lie, on one logarithmic axis."""
    drawable = [step for step in steps if _spread(step.latency)]
    if not drawable:
        return None
    low = min(step.latency.quantiles_ms[0] for step in drawable)
    high = max(max(step.latency.quantiles_ms[-2], step.latency.p99_ms) for step in drawable)
    scale = Scale(max(low * 0.9, 1e-6), high * 1.15, LABELS, WIDTH - 20, logarithmic=True)
    bottom = _TOP + len(drawable) * _RIDGE + 6
    drawn = grid(scale, _TOP, bottom, "ms, logarithmic")
    for number, step in enumerate(drawable, start=1):
        drawn += _ridge(step, scale, _TOP + number * _RIDGE)
    says = "; ".join(
        f"{step.name}: p50 {milliseconds(step.latency.p50_ms)}, p99"
        f" {milliseconds(step.latency.p99_ms)} ms"
        for step in drawable
    )
    return figure(join(drawn), height=bottom + 44, title="Latency distributions", says=says)


def _spread(latency: Figures) -> bool:
    quantiles = latency.quantiles_ms
    return len(quantiles) > 2 and min(quantiles) > 0  # noqa: PLR2004  a shape has a middle


def _ridge(step: Step, scale: Scale, base: float) -> Iterator[Markup]:
    yield words(short(step.name), LABELS - 10, base - 8, at="end", class_=f"name {step.look}")
    yield line(LABELS, base, WIDTH - 20, base, "base")
    heights = _density(step.latency.quantiles_ms, scale)
    tallest = max(heights)
    places = [scale.begin + i / (_POINTS - 1) * (scale.end - scale.begin) for i in range(_POINTS)]
    points = [
        f"{x:.1f},{base - height / tallest * (_RIDGE - 10):.1f}"
        for x, height in zip(places, heights, strict=True)
    ]
    outline = f"M{places[0]:.1f},{base:.1f} L{' '.join(points)} L{places[-1]:.1f},{base:.1f} Z"
    yield tag("path", d=outline, class_=f"ridge {step.look}")
    latency = step.latency
    for name, value in (("p50", latency.p50_ms), ("p99", latency.p99_ms)):
        x = scale(value)
        yield tag(
            "g",
            tag("title", f"{step.name}: {name} {milliseconds(value)} ms"),
            line(x, base - _RIDGE + 16, x, base, f"mark {name}"),
        )
    if latency.p99_high_ms is not None:
        yield line(scale(latency.p99_ms), base - 3, scale(latency.p99_high_ms), base - 3, "whisker")


def _density(quantiles: Sequence[float], scale: Scale) -> list[float]:
    """A smooth density over the places of the scale: a bell around each quantile."""
    logs = [math.log(value) for value in quantiles]
    low, high = math.log(scale.low), math.log(scale.high)
    inner = logs[len(logs) // 10 : -(len(logs) // 10) or None]
    width = max((inner[-1] - inner[0]) / 6, (high - low) / 150)
    heights = []
    for index in range(_POINTS):
        at = low + index / (_POINTS - 1) * (high - low)
        heights.append(sum(math.exp(-0.5 * ((at - value) / width) ** 2) for value in logs))
    return heights


def _figures(steps: Sequence[Step]) -> Markup:
    columns = ("", "fastest", "p50", "p95", "p99", "p99 at most (95 %)", "samples", "beside others")
    rows = [
        (
            step.name,
            milliseconds(step.latency.min_ms),
            _bounded(step.latency.p50_ms, step.latency.p50_low_ms, step.latency.p50_high_ms),
            _bounded(step.latency.p95_ms, step.latency.p95_low_ms, step.latency.p95_high_ms),
            milliseconds(step.latency.p99_ms),
            milliseconds(step.latency.p99_high_ms) or "too few samples",
            f"{step.latency.samples}",
            f"{step.latency.contaminated_share:.0%}",
        )
        for step in steps
    ]
    return table(columns, rows, caption="Latency in milliseconds; bounds are order statistics")


def _bounded(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return milliseconds(value)
    return f"{milliseconds(value)} [{milliseconds(low)}, {milliseconds(high)}]"
