"""What the plots have in common: scales, ticks, and a description in words. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_builder.report.html.markup import Attribute, Markup, tag

WIDTH: Final = 760.0
LABELS: Final = 200.0  # for names, on the left
VALUES: Final = 120.0  # for figures, on the right
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)
_LOG_STEPS: Final = (1.0, 2.0, 5.0)
_NAME: Final = 30


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to a place on the drawing."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is; one beyond the scale is at its end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.0
        return self.begin + share * (self.end - self.begin)

    def ticks(self, count: int = 6) -> list[float]:
        """Round values within the scale, about so many."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [step * 10.0**decade for decade in decades for step in _LOG_STEPS]
            return [value for value in found if self.low <= value <= self.high]
        rough = (self.high - self.low) / count
        if rough <= 0:
            return [self.low]
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in _STEPS if unit * factor >= rough)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]


def figure(drawing: Markup, *, height: float, title: str, says: str) -> Markup:
    """An SVG for eyes, with a title and a description for everybody else."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", says),
        drawing,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        role="img",
        aria_label=f"{title}. {says}",
        class_="plot",
    )


def words(
    content: str, x: float, y: float, *, at: str = "start", class_: str | None = None
) -> Markup:
    """Text on a drawing."""
    return tag("text", content, x=x, y=y, text_anchor=at, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def bar(x: float, y: float, width: float, height: float, **attributes: Attribute) -> Markup:
    """A bar with rounded corners; too little to see is still one pixel."""
    return tag("rect", x=x, y=y, width=max(width, 1.0), height=height, rx=3.0, **attributes)


def grid(scale: Scale, top: float, bottom: float, unit: str) -> list[Markup]:
    """Vertical lines at round values, with the values below."""
    drawn: list[Markup] = []
    for value in scale.ticks():
        x = scale(value)
        drawn.append(line(x, top, x, bottom, "grid"))
        drawn.append(words(f"{value:g}", x, bottom + 16, at="middle", class_="tick"))
    drawn.append(words(unit, scale.end, bottom + 34, at="end", class_="tick"))
    return drawn


def short(name: str, length: int = _NAME) -> str:
    """A name that fits beside a plot."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> Markup:
    """Figures as a table, the first column names the row."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    parts = tag("caption", caption), tag("thead", head), tag("tbody", *body)
    return tag("div", tag("table", *parts), class_="scroll")


def with_figures(plot: Markup, figures: Markup) -> Markup:
    """A plot, and the same as a table to unfold."""
    return tag("figure", plot, tag("details", tag("summary", "The figures"), figures))
