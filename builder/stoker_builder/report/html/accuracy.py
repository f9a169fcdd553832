"""Accuracy with its bounds against the budget, and what quantising each layer does. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from stoker_builder.report.document import Candidate
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
from stoker_builder.report.words import points, title, value, verdict
from stoker_builder.rows import Mark
from stoker_contract.manifest import Accuracy

_ROW: Final = 34.0
_TOP: Final = 26.0
_LAYERS: Final = 20
_LAYER: Final = 22.0

Judged = tuple[Candidate, Accuracy]


def judged_of(rows: Sequence[Candidate]) -> list[Judged]:
    """The candidates that were compared with the reference."""
    return [
        (row, row.accuracy)
        for row in rows
        if row.accuracy is not None and row.verdict is not Mark.REFERENCE
        # FP32 may ship, and is still the reference
        if row.accuracy.basis != "reference"
    ]


def intervals(judged: Sequence[Judged]) -> Markup:
    """The loss that was seen, its bound, and the budget."""
    budget = 100 * max(accuracy.budget for _, accuracy in judged)
    losses = [100 * value for _, one in judged for value in (one.loss, one.loss_bound)]
    low, high = min(0.0, *losses), max(budget, *losses)
    pad = 0.08 * (high - low)
    scale = Scale(low - pad, high + pad, LABELS, WIDTH - VALUES)
    bottom = _TOP + len(judged) * _ROW
    drawn = [
        bar(scale(budget), _TOP, scale.end - scale(budget), bottom - _TOP, class_="over"),
        *grid(scale, _TOP, bottom, "loss in points (hundredths of the range of the metric)"),
        line(scale(budget), _TOP - 6, scale(budget), bottom, "budget"),
        words(f"budget {budget:g}", scale(budget), _TOP - 10, at="middle", class_="tick budget"),
    ]
    for number, (row, accuracy) in enumerate(judged):
        drawn += _interval(row, accuracy, scale, _TOP + (number + 0.5) * _ROW)
    says = "; ".join(
        f"{title(row)} {points(one.loss)}, bound {points(one.loss_bound)}: {verdict(row)}"
        for row, one in judged
    )
    plot = figure(join(drawn), height=bottom + 44, title="Loss of accuracy", says=says)
    return with_figures(plot, _figures(judged))


def _interval(row: Candidate, accuracy: Accuracy, scale: Scale, y: float) -> Iterator[Markup]:
    look = "ships" if row.shipped else row.verdict.value.lower()
    seen, bound = scale(100 * accuracy.loss), scale(100 * accuracy.loss_bound)
    yield words(short(title(row)), LABELS - 10, y + 4, at="end", class_=f"name {look}")
    yield line(seen, y, bound, y, f"interval {look}")
    yield line(bound, y - 6, bound, y + 6, f"interval {look}")
    yield tag("circle", cx=seen, cy=y, r=5.0, class_=f"dot {look}")
    shown = f"{points(accuracy.loss)} ({points(accuracy.loss_bound)})"
    yield words(shown, WIDTH - VALUES + 8, y + 4, class_="value")


def _figures(judged: Sequence[Judged]) -> Markup:
    columns = (
        "",
        "reference",
        "candidate",
        "loss",
        "bound",
        "samples",
        "worst slice",
        "certified on",
    )
    rows = [
        (
            title(row),
            value(one.reference, one),
            value(one.candidate, one),
            points(one.loss),
            points(one.loss_bound),
            str(one.samples),
            _worst_slice(one),
            one.certified_on,
        )
        for row, one in judged
    ]
    return table(columns, rows, caption=f"{judged[0][1].metric}; losses in points")


def _worst_slice(accuracy: Accuracy) -> str:
    guard = accuracy.slices
    if guard is None:
        return ""
    return f"{guard.worst}: {points(guard.worst_loss)} on {guard.worst_samples} samples"


def sensitivity(row: Candidate) -> Markup:
    """What quantising each layer alone does, the worst first."""
    layers = sorted(row.sensitivity, key=lambda layer: -layer.damage)[:_LAYERS]
    worst = max(*(layer.damage for layer in layers), 1e-12)
    scale = Scale(0, worst, LABELS, WIDTH - VALUES)
    bottom = 8 + len(layers) * _LAYER
    drawn = grid(scale, 8, bottom, "damage to the answers")
    for number, layer in enumerate(layers):
        y = 8 + number * _LAYER
        name = words(short(layer.name), LABELS - 10, y + 15, at="end", class_="name")
        drawn.append(tag("g", tag("title", f"{layer.op_type} {layer.name}"), name))
        end = scale(layer.damage)
        drawn.append(bar(LABELS, y + 4, end - LABELS, _LAYER - 8, class_="bar refused"))
        shown = f"{layer.damage:.3g}  {layer.op_type}"
        drawn.append(words(shown, end + 8, y + 15, class_="value"))
    says = f"Worst is {layers[0].name} with {layers[0].damage:.3g}."
    heading = f"Sensitivity of {title(row)}"
    plot = figure(join(drawn), height=bottom + 44, title=heading, says=says)
    rows = [(layer.name, layer.op_type, f"{layer.damage:.4g}") for layer in row.sensitivity]
    figures = table(("layer", "operator", "damage"), rows, caption="Each layer quantised alone")
    return with_figures(plot, figures)
