"""The page: what ships, how fast, how right, why not the others, and where it came from. Pure."""

from collections.abc import Iterator
from importlib import resources

from stoker_builder.report.document import Candidate, Report, TargetProfile
from stoker_builder.report.html import accuracy, latency, operators, provenance, verdicts
from stoker_builder.report.html.markup import Markup, join, tag
from stoker_builder.report.words import (
    captions,
    certified_on,
    megabytes,
    milliseconds,
    points,
    times,
    title,
    warnings,
)
from stoker_builder.rows import Mark

# nothing is fetched and nothing runs, whatever a name in the report would like
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(report: Report) -> bytes:
    """Write the page."""
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content="stoker"),
        tag("title", f"{report.release}: build report"),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *_parts(report)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n".encode()


def _parts(report: Report) -> Iterator[Markup]:
    yield _header(report)
    yield tag("div", *_cards(report), class_="cards")
    for target in report.targets:
        yield join(_target(report, target))
    yield provenance.section(report)
    made = f"Made by {report.builder} from report.json alone." if report.builder else ""
    yield tag("footer", tag("p", made))


def _header(report: Report) -> Markup:
    model, _, version = report.release.partition("/")
    name = tag("h1", model, " ", tag("span", version, class_="version"))
    notes = [tag("p", f"{_sentence(line)}.", class_="note") for line in warnings(report)]
    about = [tag("li", _sentence(line)) for line in captions(report)]
    return tag("header", name, tag("ul", *about, class_="lead"), *notes)


def _cards(report: Report) -> Iterator[Markup]:
    for target in report.targets:
        row = report.shipped_for(target)
        if row is not None:
            facts = [
                join((tag("dt", name), tag("dd", value))) for name, value in _facts(row) if value
            ]
            what = tag("div", title(row), class_="what")
            yield tag("section", tag("h3", target), what, tag("dl", *facts), class_="card")


def _facts(row: Candidate) -> Iterator[tuple[str, str]]:
    if row.latency is not None:
        yield "median", f"{milliseconds(row.latency.p50_ms)} ms"
        yield "99 of 100 within", f"{milliseconds(row.latency.p99_ms)} ms"
        yield "than PyTorch eager", _faster(row.latency.vs_eager)
        yield "than eager, allocator tuned", _faster(row.latency.vs_eager_tuned)
        yield "than FP32", "" if row.candidate == "fp32" else _faster(row.latency.vs_fp32)
    if row.accuracy is not None and row.verdict is not Mark.REFERENCE:
        loss, bound = points(row.accuracy.loss), points(row.accuracy.loss_bound)
        yield "loss (at most)", f"{loss} ({bound}) pp"
    yield "size", f"{megabytes(row.size_bytes)} MB"
    if row.start is not None:
        yield "load", f"{milliseconds(row.start.load_ms)} ms"
        yield "memory", f"{row.start.load_peak_bytes / 1e6:.0f} MB"


def _faster(ratio: float | None) -> str:
    return f"{times(ratio)} faster" if ratio is not None else ""


def _target(report: Report, target: str) -> Iterator[Markup]:
    rows = report.rows_of(target)
    yield tag("h2", target)
    if (shipped := report.shipped_for(target)) is not None:
        yield tag("p", f"{title(shipped)} ships, certified on {certified_on(shipped)}.")
    yield verdicts.section(report, target)
    steps = latency.steps_of(report, target)
    if any(step.look != "baseline" for step in steps):
        ships = any(step.look == "ships" for step in steps)
        yield tag("h3", "From PyTorch to what ships" if ships else "How fast each is")
        yield latency.staircase(steps)
        if (shapes := latency.distributions(steps)) is not None:
            yield tag("h3", "How latency is spread")
            yield tag("p", "A line marks the median, a dashed line p99.", class_="soft")
            yield tag("figure", shapes)
    if judged := accuracy.judged_of(rows):
        yield tag("h3", "Accuracy, and how sure it is")
        about = "The dot is the loss that was seen; the whisker ends at its bound."
        yield tag("p", about, class_="soft")
        yield accuracy.intervals(judged)
    yield from _inside(report, target)


def _inside(report: Report, target: str) -> Iterator[Markup]:
    nothing = TargetProfile(target=target)
    profile = next((one for one in report.profiles if one.target == target), nothing)
    if (stacks := operators.before_and_after(profile)) is not None:
        yield tag("h3", "Where the time goes")
        yield stacks
    if profile.throughput:
        yield tag("h3", "Threads or parallel runs")
        yield operators.throughput(profile.throughput)
    yield verdicts.fusion(report.rows_of(target))
    for row in report.rows_of(target):
        if row.sensitivity:
            yield tag("h3", f"Which layers suffer in {title(row)}")
            yield accuracy.sensitivity(row)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
