"""Drawing what ``stoker inspect`` found."""

from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoker_builder.inspection.look import Inspected, name_of
from stoker_builder.inspection.onnx_facts import FileFacts
from stoker_builder.report.words import megabytes, milliseconds, points, times, value
from stoker_cli.printable import printable
from stoker_contract.manifest import Accuracy, Artifact, Latency, Manifest
from stoker_contract.target import runtime_of

_OPERATORS: Final = 12
_PIPED_WIDTH: Final = 120

Facts = Iterable[tuple[str, str]]


def show(found: Inspected) -> None:
    """Print it, a block for the release and one for each artifact or file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    if found.manifest is not None:
        _block(console, found.manifest.release, _release(found.manifest))
        for artifact in found.manifest.artifacts:
            _block(console, artifact.target.name, _artifact(artifact))
    for name, facts in found.files.items():
        _block(console, name, _file(facts))
    for name in found.missing:
        console.print(Text(printable(f"missing: {name}"), style="bold red"))


def _block(console: Console, title: str, facts: Facts) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in facts:
        if said:
            table.add_row(f"  {name}", Text(printable(said)))
    console.print(Text(printable(title), style="bold"))
    console.print(table)
    console.print()


def _release(manifest: Manifest) -> Facts:
    yield "counter", f"{manifest.counter}, devices refuse below {manifest.min_counter}"
    if manifest.dev:
        yield "dev", "yes: a production device refuses it"
    if manifest.source is not None:
        source = manifest.source
        yield "source", f"{source.kind}, opset {source.opset}, {source.digest}"
    yield "preprocessing", manifest.preprocessing
    for name, data in (
        ("calibrated on", manifest.calibration),
        ("certified on", manifest.certification),
    ):
        if data is not None:
            yield name, f"{data.samples} samples {data.note} {data.digest}"
    yield "built with", manifest.builder


def _artifact(artifact: Artifact) -> Facts:
    session, footprint = artifact.session, artifact.footprint
    yield "file", f"{name_of(artifact)}, {megabytes(artifact.length)} MB, {artifact.digest}"
    needs = ", ".join((artifact.target.arch, *artifact.target.isa))
    yield "for", needs
    yield "precision", f"{artifact.precision} {artifact.recipe}".strip()
    runtime = runtime_of(artifact.kind, session.runtime)
    runs = f", {session.parallel_runs} runs at once" if session.parallel_runs > 1 else ""
    yield "runs with", f"{runtime}, {_threads(session.intra_op_threads)}{runs}"
    yield "takes", "; ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in artifact.io.inputs)
    yield "gives", "; ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in artifact.io.outputs)
    yield "accuracy", _accuracy(artifact.accuracy)
    yield "latency", _latency(artifact.latency)
    if footprint.load_peak_bytes:
        yield "memory", f"{footprint.load_peak_bytes / 1e6:.0f} MB at most while loading"
    if artifact.fusion is not None:
        yield "quantised", f"{artifact.fusion.quantised_mac_share:.0%} of the multiplications"
    golden = artifact.golden
    about = f"{golden.samples} samples, {golden.agreement}, tolerance {golden.tolerance:.3g}"
    yield "golden set", f"{about}, at least {golden.min_score:.0%} must agree"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return ""
    reached = f"{accuracy.metric} {value(accuracy.candidate, accuracy)}"
    if accuracy.basis == "reference":
        return f"{reached}, the reference; certified on {accuracy.certified_on}"
    seen, bound = points(accuracy.loss), points(accuracy.loss_bound)
    loss = f"loss {seen} ({bound}) of {100 * accuracy.budget:g}"
    where = f"{accuracy.samples} samples, certified on {accuracy.certified_on}"
    return f"{reached}, {loss} points; gate {accuracy.gate}, {where}"


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "not measured on this kind of processor"
    quantiles = " / ".join(
        milliseconds(ms) for ms in (latency.p50_ms, latency.p95_ms, latency.p99_ms)
    )
    against = [
        f"{times(ratio)} {name}"
        for name, ratio in (("eager", latency.speedup_vs_eager), ("FP32", latency.speedup_vs_fp32))
        if ratio is not None
    ]
    faster = f"; {', '.join(against)}" if against else ""
    return f"p50/p95/p99 {quantiles} ms, {_threads(latency.threads)}{faster}; {latency.measured_on}"


def _file(facts: FileFacts) -> Facts:
    yield "size", f"{megabytes(facts.size_bytes)} MB, SHA-256 {facts.digest}"
    yield "made by", facts.producer
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts.opsets.items())
    yield "opset", f"{opsets}; IR {facts.ir_version}"
    yield "takes", "; ".join(f"{t.name} {t.dtype}[{', '.join(t.shape)}]" for t in facts.inputs)
    yield "gives", "; ".join(f"{t.name} {t.dtype}[{', '.join(t.shape)}]" for t in facts.outputs)
    shown = [f"{kind} {count}" for kind, count in list(facts.operators.items())[:_OPERATORS]]
    more = len(facts.operators) - len(shown)
    rest = f", {more} more kinds" if more > 0 else ""
    yield "operators", f"{facts.node_count} nodes: {', '.join(shown)}{rest}"
    held = ", ".join(f"{kind} {megabytes(size)} MB" for kind, size in facts.weight_bytes.items())
    yield "weights", f"{facts.parameters:,} values: {held}"
    quantised = facts.quantisation
    if quantised.style != "none":
        about = f"{quantised.int8_share:.0%} of the weight bytes in 8 bits or fewer"
        scales = f"{quantised.per_channel} weights per channel, {quantised.per_tensor} per tensor"
        yield "quantised", f"{quantised.style}; {about}; {scales}"
