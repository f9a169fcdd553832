"""Drawing latency: percentiles as a table, a histogram as bars, both from merged counts."""

from collections.abc import Sequence
from math import ceil, floor, log2
from typing import Any, Final

from rich.columns import Columns
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from stoker_cli.printable import printable
from stoker_contract.histogram import (
    BUCKETS_PER_OCTAVE,
    NS_PER_MS,
    HistogramData,
    quantile_ms,
)
from stoker_fleet.store.latency import MergedLatency

QUANTILES: Final = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))
KINDS: Final = ("total", "queue", "compute")
_BARS_PER_OCTAVE: Final = 4
_BUCKETS_PER_BAR: Final = BUCKETS_PER_OCTAVE // _BARS_PER_OCTAVE
_MAX_BARS: Final = 24
_WIDTH: Final = 24
_GAP: Final = "⋮"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def as_object(merged: MergedLatency) -> dict[str, Any]:
    """Merged latency as JSON: percentiles in milliseconds, and the counts they come from."""
    value: dict[str, Any] = {
        "slot": merged.slot,
        "release": merged.release,
        "digest": merged.digest or None,
        "devices": merged.devices,
        "windows": merged.windows,
        "requests": merged.requests,
        "errors": merged.errors,
        "refused": merged.refused,
    }
    for kind in KINDS:
        data = _histogram(merged, kind)
        percentiles = {f"{name}_ms": quantile_ms(data, q) for name, q in QUANTILES}
        value[kind] = {"count": data.count, **percentiles, "histogram": data.to_object()}
    return value


def draw(merged: Sequence[MergedLatency], whose: str) -> None:
    """Print the percentiles of every group, and the histograms of the newest."""
    console = Console(highlight=False)
    if not merged:
        console.print(f"No latency was received from {whose} yet: it comes once a window.")
        return
    console.print(_table(merged))
    newest = merged[-1]
    charts = []
    for kind in KINDS:
        data = _histogram(newest, kind)
        if data.count:
            charts.append(Group(Text(kind, style="bold"), *bars(data)))
    console.print()
    console.print(Text.assemble((printable(newest.release), "bold"), f" in slot {newest.slot}"))
    # Side by side where the terminal is wide enough, else one below the other.
    console.print(Columns(charts, padding=(0, 3)))


def bars(data: HistogramData) -> list[Text]:
    """A histogram as lines, a quarter of an octave each; percentiles are marked where they are."""
    heights = _coarse(data)
    marks: dict[int, list[str]] = {}
    for name, q in QUANTILES:
        if value := quantile_ms(data, q):
            bar = min(floor(log2(value * NS_PER_MS) * _BARS_PER_OCTAVE), max(heights))
            marks.setdefault(bar, []).append(name)
    tallest = max(heights.values(), default=1)
    lines: list[Text] = []
    for bar in range(min(heights, default=0), max(heights, default=-1) + 1):
        if count := heights.get(bar, 0):
            lines.append(_line(bar, count, count / tallest, " ".join(marks.get(bar, ()))))
        elif lines[-1].plain.strip() != _GAP:
            lines.append(Text(f"{_GAP:>10}", style="dim"))
    return lines


def _line(bar: int, count: int, share: float, mark: str) -> Text:
    lower_ms = 2 ** (bar / _BARS_PER_OCTAVE) / NS_PER_MS
    return Text.assemble(
        (f"{lower_ms:>10.3g} ms ", "dim"),
        (_bar(share), "cyan"),
        (f" {count}", "dim"),
        (f" ◀ {mark}" if mark else "", "bold yellow"),
    )


def _coarse(data: HistogramData) -> dict[int, int]:
    """Counts by quarter octave; a long thin tail is folded into the last bar that fits."""
    heights: dict[int, int] = {}
    for index, count in enumerate(data.counts, start=data.offset):
        if count:
            bar = index // _BUCKETS_PER_BAR
            heights[bar] = heights.get(bar, 0) + count
    if not heights:
        return heights
    last = min(heights) + _MAX_BARS - 1
    folded: dict[int, int] = {}
    for bar, count in heights.items():
        folded[min(bar, last)] = folded.get(min(bar, last), 0) + count
    return folded


def _bar(share: float) -> str:
    eighths = ceil(share * _WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _table(merged: Sequence[MergedLatency]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("slot")
    table.add_column("release")
    table.add_column("artifact")
    for title in ("devices", "requests", "errors"):
        table.add_column(title, justify="right")
    for kind in KINDS:
        table.add_column(f"{kind} p50 / p95 / p99 ms", justify="right")
    for one in merged:
        table.add_row(
            one.slot,
            Text(printable(one.release)),
            one.digest[:12] or "all",
            str(one.devices),
            str(one.requests),
            str(one.errors + one.refused),
            *(_percentiles(_histogram(one, kind)) for kind in KINDS),
        )
    return table


def _percentiles(data: HistogramData) -> str:
    values = [quantile_ms(data, q) for _, q in QUANTILES]
    return " / ".join("-" if value is None else f"{value:.3g}" for value in values)


def _histogram(merged: MergedLatency, kind: str) -> HistogramData:
    data: HistogramData = getattr(merged, kind)
    return data
