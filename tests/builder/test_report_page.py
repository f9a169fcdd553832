"""The page: one file that fetches nothing, runs nothing, and says in words what it draws."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_builder.bench import BuildResult
from stoker_builder.profiling.operators import OperatorProfile, OperatorShare
from stoker_builder.report.document import (
    Candidate,
    Compared,
    LayerDamage,
    Report,
    TargetProfile,
)
from stoker_builder.report.html.drawing import Scale
from stoker_builder.report.html.markup import Markup, tag, text
from stoker_builder.report.html.page import to_html
from stoker_builder.report.markdown import to_markdown
from stoker_builder.rows import Mark

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; background:url(https://example.com/x) '",
    "</style><svg onload=alert(1)>",
    "]]>--></title>\x1b[31m\x00",
    "| a | b |\n\n# heading [x](javascript:alert(1))",
)
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """Every element and attribute of a page; complains of elements that are not closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def everywhere(report: Report, name: str) -> Report:
    """The report, with a name of somebody else's choice wherever somebody else chooses."""
    row = report.rows_of("x86-64-vnni")[0]
    layers = (LayerDamage(name=name, op_type=name, damage=0.5),)
    hostile = Candidate(
        **{**dict(row), "candidate": name, "why": name, "runtime": name, "sensitivity": layers}
    )
    return report.model_copy(
        update={
            "release": f"m/{name}",
            "data": report.data.model_copy(update={"name": name, "note": name}),
            "source": report.source.model_copy(update={"notes": (name,)}),
            "candidates": (*report.candidates, hostile),
            "profiles": (TargetProfile(target=name),),
        }
    )


def test_the_page_fetches_nothing_and_runs_nothing(built: BuildResult) -> None:
    """No script, no link, no image, no frame: what is in the file is all there is."""
    page = Page(to_html(built.report))

    assert not {name for name, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    attributes = {key for _, attrs in page.elements for key in attrs}
    assert not {key for key in attributes if key.startswith("on")} | attributes & {"src", "href"}
    style = to_html(built.report).decode().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("ms", [0.0, 1e-9, 7.0, 1e300])
@pytest.mark.parametrize("loss", [-1e300, -0.01, 0.0, 5.0])
def test_strange_figures_are_drawn_all_the_same(built: BuildResult, ms: float, loss: float) -> None:
    """A report that somebody wrote by hand breaks no plot, and nothing is drawn at infinity."""
    row = next(row for row in built.report.candidates if row.accuracy)
    assert row.accuracy is not None
    latency = Compared(
        p50_ms=ms,
        p95_ms=ms,
        p99_ms=ms,
        min_ms=ms,
        samples=0,
        p99_high_ms=ms,
        quantiles_ms=(ms, 0.0, ms, 5.0),
    )
    accuracy = row.accuracy.model_copy(
        update={"basis": "labels", "loss": loss, "loss_bound": loss, "budget": abs(loss)}
    )
    operators = OperatorProfile(
        title="t",
        runtime="r",
        total_ms=ms,
        by_type=(OperatorShare(name="", op_type="Conv", calls=0, ms=ms, share=0.0),),
    )
    strange = row.model_copy(
        update={
            "latency": latency,
            "accuracy": accuracy,
            "shipped": True,
            "verdict": Mark.PASS,
            "sensitivity": (LayerDamage(name="a", op_type="b", damage=loss),),
        }
    )
    profile = TargetProfile(target=row.target, before=operators, after=operators)
    report = built.report.model_copy(update={"candidates": (strange,), "profiles": (profile,)})

    page = to_html(report).decode()

    Page(page.encode())
    assert not re.search(r'"(nan|-?inf)"', page)


def test_the_page_forbids_itself_to_fetch(built: BuildResult) -> None:
    """Even a mistake of ours could load nothing: the policy says so."""
    (policy,) = [a["content"] for _, a in Page(to_html(built.report)).elements if "http-equiv" in a]

    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_plot_says_in_words_what_it_shows(built: BuildResult) -> None:
    """Each drawing is an image with a label, and has a title and a description."""
    page = Page(to_html(built.report))
    plots = [attributes for name, attributes in page.elements if name == "svg"]

    assert len(plots) >= 2
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert sum(name == "desc" for name, _ in page.elements) == len(plots)


def test_the_page_names_every_candidate_and_why_it_does_not_ship(built: BuildResult) -> None:
    """Whatever the report says against a candidate is on the page."""
    page = Page(to_html(built.report))

    for row in built.report.candidates:
        assert row.candidate in page.words
        assert row.why in page.words
    assert built.report.source.digest in page.words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text(built: BuildResult, name: str) -> None:
    """Names, notes and reasons can not add an element, an attribute or a control character."""
    harmless = everywhere(built.report, "harmless")
    page, hostile = (Page(to_html(one)) for one in (harmless, everywhere(built.report, name)))

    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in page.elements]
    assert [set(a) for _, a in hostile.elements] == [set(a) for _, a in page.elements]
    assert "\x1b" not in hostile.words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text_in_markdown(built: BuildResult, name: str) -> None:
    """It can not begin a heading, end a cell or make a link."""
    harmless = to_markdown(everywhere(built.report, "harmless")).decode()
    hostile = to_markdown(everywhere(built.report, name)).decode()

    assert len(hostile.splitlines()) == len(harmless.splitlines())
    bars = re.compile(r"(?<!\\)\|")
    assert len(bars.findall(hostile)) == len(bars.findall(harmless))
    assert not re.search(r"(?<!\\)[<>]", hostile)


@given(st.text(), st.text())
def test_no_text_breaks_an_element(content: str, value: str) -> None:
    """Whatever is written into an element, it is one element with that text."""
    page = Page(tag("p", content, title=value).encode(errors="replace"))

    assert [(name, list(attributes)) for name, attributes in page.elements] == [("p", ["title"])]


def test_markup_is_not_escaped_twice() -> None:
    """Only text is escaped."""
    assert text(Markup("<b>")) == "<b>"
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"


@given(low=st.floats(1e-6, 1e6), factor=st.floats(1.001, 1e6), logarithmic=st.booleans())
def test_ticks_lie_on_the_scale(low: float, factor: float, *, logarithmic: bool) -> None:
    """Round values within the ends, few enough to be read, in rising order."""
    scale = Scale(low, low * factor, 0, 700, logarithmic=logarithmic)
    ticks = scale.ticks()

    assert ticks == sorted(ticks)
    assert len(ticks) <= 40
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)
    assert all(-0.1 <= scale(tick) <= 700.1 for tick in ticks)
