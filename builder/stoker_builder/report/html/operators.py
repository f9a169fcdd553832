"""Where the time of one run goes, before and after, and how the cores are best used. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.report.document import TargetProfile, Throughput
from stoker_builder.report.html.drawing import (
    WIDTH,
    Scale,
    bar,
    figure,
    grid,
    short,
    table,
    with_figures,
    words,
)
from stoker_builder.report.html.markup import Markup, join, tag
from stoker_builder.report.words import milliseconds

_ROW: Final = 64.0
_TOP: Final = 8.0
_COLOURS: Final = 8
_LEGEND_COLUMN: Final = 180.0
_LEGEND_ROW: Final = 20.0
_MIN_LABEL: Final = 62.0  # a narrower part has no room for its name


def before_and_after(profile: TargetProfile) -> Markup | None:
    """Stacked bars on one scale: which operators take the time of one run."""
    profiles = [one for one in (profile.before, profile.after) if one is not None and one.by_type]
    if not profiles:
        return None
    colours = _colours(profiles)
    scale = Scale(0, max(one.total_ms for one in profiles), 10, WIDTH - 20)
    bottom = _TOP + len(profiles) * _ROW
    drawn = grid(scale, _TOP, bottom, "ms of one run")
    for number, one in enumerate(profiles):
        drawn += _stack(one, colours, scale, _TOP + number * _ROW)
    drawn += _legend(colours, bottom + 48)
    says = "; ".join(
        f"{one.title}: {milliseconds(one.total_ms)} ms, most of it in {one.by_type[0].op_type}"
        for one in profiles
    )
    rows = -(-len(colours) // int(WIDTH // _LEGEND_COLUMN))
    height = bottom + 48 + rows * _LEGEND_ROW
    plot = figure(join(drawn), height=height, title="Where the time goes", says=says)
    return with_figures(plot, join(_figures(one) for one in profiles))


def _colours(profiles: Sequence[OperatorProfile]) -> dict[str, str]:
    """A colour for each kind of operator, the same before and after; the rest share a grey."""
    most: dict[str, float] = {}
    for profile in profiles:
        for one in profile.by_type:
            most[one.op_type] = max(most.get(one.op_type, 0.0), one.share)
    kinds = sorted(most, key=lambda kind: -most[kind])
    return {kind: f"c{min(place, _COLOURS)}" for place, kind in enumerate(kinds)}


def _stack(
    profile: OperatorProfile, colours: dict[str, str], scale: Scale, y: float
) -> Iterator[Markup]:
    heading = f"{profile.title} · {profile.runtime} · {milliseconds(profile.total_ms)} ms"
    yield words(heading, 10, y + 14, class_="name")
    at = 0.0
    for one in profile.by_type:
        x, end = scale(at), scale(at + one.ms)
        at += one.ms
        about = f"{one.op_type}: {milliseconds(one.ms)} ms, {one.share:.0%}, {one.calls} nodes"
        part = bar(x, y + 22, max(end - x - 1, 0.5), 26, class_=f"part {colours[one.op_type]}")
        yield tag("g", tag("title", about), part)
        if end - x >= _MIN_LABEL:
            label = f"{short(one.op_type, int((end - x) / 8))} {one.share:.0%}"
            yield words(label, x + 8, y + 39, class_="inside")


def _legend(colours: dict[str, str], y: float) -> Iterator[Markup]:
    columns = int(WIDTH // _LEGEND_COLUMN)
    for place, (kind, colour) in enumerate(colours.items()):
        x = 10 + place % columns * _LEGEND_COLUMN
        top = y + place // columns * _LEGEND_ROW
        yield bar(x, top, 12, 12, class_=f"part {colour}")
        yield words(short(kind, 20), x + 18, top + 10, class_="tick")


def _figures(profile: OperatorProfile) -> Markup:
    kinds = [
        (one.op_type, str(one.calls), milliseconds(one.ms), f"{one.share:.1%}")
        for one in profile.by_type
    ]
    nodes = [
        (one.name, one.op_type, milliseconds(one.ms), f"{one.share:.1%}") for one in profile.nodes
    ]
    by_kind = table(("operator", "nodes", "ms", "share"), kinds, caption=profile.title)
    caption = f"{profile.title}: the most expensive nodes"
    return join((by_kind, table(("node", "operator", "ms", "share"), nodes, caption=caption)))


def throughput(uses: Sequence[Throughput]) -> Markup:
    """What threads and parallel runs bring, best throughput marked."""
    best = max(uses, key=lambda use: use.per_second)
    rows = [
        (
            f"{use.parallel} at once, {use.threads} thread{'s' if use.threads > 1 else ''} each",
            milliseconds(use.p50_ms),
            milliseconds(use.p99_ms),
            f"{use.per_second:.0f}{'  ◀ most' if use is best else ''}",
        )
        for use in uses
    ]
    columns = ("runs", "p50 ms", "p99 ms", "per second")
    return table(columns, rows, caption="The shipped artifact, callers without a pause")
