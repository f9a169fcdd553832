"""The table of candidates with its reasons, and what the fusion audit found. Pure."""

from collections.abc import Sequence
from typing import Final

from stoker_builder.report.document import Candidate, Report
from stoker_builder.report.html.drawing import (
    LABELS,
    WIDTH,
    bar,
    figure,
    short,
    words,
)
from stoker_builder.report.html.markup import Markup, join, tag
from stoker_builder.report.words import VERDICTS, cells, integer_share, title, verdict
from stoker_contract.manifest import Fusion

_ROW: Final = 30.0
_VALUES: Final = 150.0
_SHOWN: Final = ("MB", "p50 ms", "p99 ms", "vs eager", "loss pp", "bound", "int8", "layers")


def section(report: Report, target: str) -> Markup:
    """Every candidate with its figures, its verdict, and why it does not ship."""
    rows = report.rows_of(target)
    filled = [cells(row) for row in rows]
    shown = [name for name in _SHOWN if any(one[name] for one in filled)]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("", "verdict", *shown)))
    body = [_row(row, one, shown) for row, one in zip(rows, filled, strict=True)]
    caption = tag("caption", "The candidates")
    whole = tag("table", caption, tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll")


def _row(row: Candidate, filled: dict[str, str], shown: Sequence[str]) -> Markup:
    look = "ships" if row.shipped else row.verdict.value.lower()
    mark = tag("span", verdict(row), class_=f"mark {look}", title=VERDICTS[row.verdict])
    figures = [tag("td", filled[name]) for name in shown]
    name = tag("th", title(row), scope="row")
    whole = tag("tr", name, tag("td", mark), *figures, class_=f"row {look}")
    if not row.why:
        return whole
    reason = tag("td", row.why, class_="words", colspan=float(2 + len(shown)))
    return join((whole, tag("tr", reason, class_="why")))


def fusion(rows: Sequence[Candidate]) -> Markup:
    """How much of each quantised candidate really runs in integers, and what does not."""
    audited = [(row, row.fusion) for row in rows if row.fusion is not None]
    if not audited:
        return Markup("")
    drawn: list[Markup] = []
    full = WIDTH - LABELS - _VALUES
    for number, (row, found) in enumerate(audited):
        y, share = number * _ROW + 4, found.quantised_mac_share
        drawn.append(words(short(title(row)), LABELS - 10, y + 18, at="end", class_="name"))
        drawn.append(bar(LABELS, y + 5, full * share, _ROW - 12, class_="bar share"))
        if share < 1:
            left, width = LABELS + full * share, full * (1 - share)
            drawn.append(bar(left, y + 5, width, _ROW - 12, class_="bar rest"))
        extra = f"  +{found.transposes_added} transposes" if found.transposes_added else ""
        shown = join((integer_share(found), tag("tspan", extra, class_="factor")))
        drawn.append(words(shown, LABELS + full + 8, y + 18, class_="value"))
    says = "; ".join(f"{title(row)} {integer_share(found)}" for row, found in audited)
    name = "Share of the multiplications that run in integers"
    plot = figure(join(drawn), height=len(audited) * _ROW + 10, title=name, says=says)
    lists = [_floats(row, found) for row, found in audited if found.float_ops]
    return join((tag("h3", name), tag("figure", plot, *lists)))


def _floats(row: Candidate, found: Fusion) -> Markup:
    nodes = [tag("li", tag("code", node)) for node in found.float_ops]
    heading = f"{title(row)}: still in floating point ({len(nodes)})"
    return tag("details", tag("summary", heading), tag("ul", *nodes))
