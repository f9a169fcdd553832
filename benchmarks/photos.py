"""EfficientNet-Lite0 from PyTorch eager to what stoker ships, in one interleaved run.

Started by ``scripts/bench photos``. Everything runs with one thread, batch 1, in turns. Eager
is measured twice, as it comes and with a tuned allocator: a third of its time on a net this
small is page faults, and a speed-up that hides that is not worth quoting.

Writes ``benchmarks/results/photos-<machine>.json`` (each variant's bursts and histogram) and
beside it the same as a table in Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import markdown, stats_object
from rich.progress import Progress

from stoker_builder.accuracy.comparison import evidence_of, value_of
from stoker_builder.accuracy.evaluate import Answers, answer_all
from stoker_builder.accuracy.gates import accuracy_verdict
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import Sample, load_data
from stoker_builder.kernels.engines import EngineRunner
from stoker_builder.kernels.isa import host_isa, target_runs_natively
from stoker_builder.latency.machine import describe_machine
from stoker_builder.latency.measure import BurstRules, Variant, measure
from stoker_builder.latency.stats import LatencyStats, speedup
from stoker_builder.latency.torch_process import TorchChild
from stoker_builder.latency.torch_routes import EAGER_TUNED
from stoker_builder.metrics import Top1
from stoker_builder.models.source import ingest
from stoker_builder.split import Split, split
from stoker_builder.targets import load_target, target_names
from stoker_contract.manifest import Artifact, Manifest, SessionOptions
from stoker_contract.target import runtime_of

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
FACTORY: Final = str(ROOT / "examples" / "photos" / "model.py") + ":factory"
DATA: Final = str(ROOT / "examples" / "photos" / "data.py") + ":dataset"

EAGER, TUNED, PLAIN, FP32, SHIPPED, PER_TENSOR = (
    "eager",
    "eager-tuned",
    "fp32-unoptimised",
    "fp32",
    "shipped",
    "int8-pertensor",
)
# Patient with neighbours: a figure that is quoted is worth waiting for.
RULES: Final = BurstRules(seconds=0.3, samples=10, retries=10, retry_budget_share=1.0)


@dataclass(frozen=True, slots=True)
class Files:
    """The ONNX files that are compared, and the manifest's entry of the one that ships."""

    fp32: Path
    shipped: Path
    per_tensor: Path
    artifact: Artifact


def main() -> None:
    """Build or take a release, answer, measure, write the result."""
    options = _options()
    if options.photos is None and not os.environ.get("STOKER_PHOTOS"):
        print("no labelled photographs given: accuracy will be agreement over packaged crops")
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder, Progress() as progress:
        scratch = Path(folder)
        release = options.release or _build(scratch, options.photos)
        data = load_data(DATA, {"folder": str(options.photos)} if options.photos else {})
        bar = progress.add_task("read and divide the samples", total=len(data.samples))
        parts = split(data, advance=lambda: progress.advance(bar))
        files = _files(release, parts, scratch)
        bar = progress.add_task("answer the samples", total=2 * len(parts.certification))
        metrics = (Top1("labels" if data.labelled else "agreement"), Top1("agreement"))
        answers, same = (
            _answers(files, parts, metric, lambda: progress.advance(bar)) for metric in metrics
        )
        bar = progress.add_task("measure, interleaved", total=1.0)
        machine = describe_machine()
        stats = _measure(
            files,
            parts.certification[0],
            seconds=options.seconds,
            report=lambda share: progress.update(bar, completed=share),
        )
    result = {
        "schema_version": 1,
        "benchmark": "photos",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.to_object(),
        "summary": machine.summary,
        "method": {
            "threads": 1,
            "batch": 1,
            "niceness": os.nice(0),
            "min_seconds": options.seconds,
            "burst_seconds": RULES.seconds,
            "idle_gap_s": RULES.idle_gap_s,
            "max_other_share": RULES.max_other_share,
        },
        "data": {"note": data.note, "labelled": data.labelled},
        "artifact": _artifact(files.artifact),
        "latency": {name: stats_object(entry) for name, entry in stats.items()},
        "speedup_of_shipped": _speedups(stats),
        "accuracy": _accuracy(answers, same),
    }
    _write(result, options.output or RESULTS / f"photos-{machine.slug}.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench photos", description=__doc__)
    parser.add_argument(
        "--photos", type=Path, help="labelled photographs; STOKER_PHOTOS when absent"
    )
    parser.add_argument("--release", type=Path, help="measure this release instead of building")
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing, per variant")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    return parser.parse_args()


def _build(scratch: Path, photos: Path | None) -> Path:
    """Let ``stoker build`` make the release, so that what is measured is what ships."""
    here = [n for n in target_names() if target_runs_natively(load_target(n).target)]
    command = [
        str(Path(sys.executable).with_name("stoker")),
        *("build", "--model", FACTORY, "--data", DATA),
        *("--name", "photos", "--version", "1.0.0", "--counter", "1"),
        *("--targets", ",".join(here), "--emulation-budget-s", "0"),
        *("--output", str(scratch / "release")),
        *(("--data-arg", f"folder={photos}") if photos else ()),
    ]
    subprocess.run(command, check=True)  # noqa: S603 - our own command
    return scratch / "release"


def _files(release: Path, parts: Split, scratch: Path) -> Files:
    """Find the shipped file, and make the ones that it is compared with."""
    manifest = Manifest.parse((release / "manifest.json").read_bytes())
    here = [a for a in manifest.artifacts if target_runs_natively(a.target)]
    if not here:
        names = ", ".join(a.target.name for a in manifest.artifacts)
        sys.exit(f"the release is for {names}; this processor has {sorted(host_isa())}")
    source = ingest(FACTORY, None, parts.certification[0].inputs, scratch)
    quantiser = Quantiser(source.path, parts.calibration, scratch)
    return Files(
        fp32=source.path,
        shipped=release / Path(here[0].path).name,
        per_tensor=quantiser.make(RECIPES[PER_TENSOR]),
        artifact=here[0],
    )


def _answers(
    files: Files,
    parts: Split,
    metric: Top1,
    advance: Any,  # noqa: ANN401 - progress
) -> dict[str, Answers]:
    engines = {
        FP32: EngineRunner(files.fp32, SessionOptions()),
        SHIPPED: EngineRunner(files.shipped, files.artifact.session),
        PER_TENSOR: EngineRunner(files.per_tensor, SessionOptions()),
    }
    return answer_all(engines, parts.certification, metric, advance=advance)


def _measure(
    files: Files,
    sample: Sample,
    *,
    seconds: float,
    report: Any,  # noqa: ANN401 - progress
) -> Mapping[str, LatencyStats]:
    inputs = sample.inputs
    with ExitStack() as stack:
        variants: dict[str, Variant] = {
            EAGER: stack.enter_context(TorchChild(FACTORY, inputs)),
            TUNED: stack.enter_context(TorchChild(FACTORY, inputs, route=EAGER_TUNED)),
            PLAIN: _engine(files.fp32, sample, SessionOptions(graph_optimisation="disabled")),
            FP32: _engine(files.fp32, sample, SessionOptions()),
            SHIPPED: _engine(files.shipped, sample, files.artifact.session),
            PER_TENSOR: _engine(files.per_tensor, sample, SessionOptions()),
        }
        return measure(variants, min_seconds=seconds, progress=report, rules=RULES)


def _engine(path: Path, sample: Sample, session: SessionOptions) -> Variant:
    """Run a file with the engine code that runs on devices."""
    engine = EngineRunner(path, session)
    return lambda: engine(sample.inputs)


def _artifact(artifact: Artifact) -> dict[str, Any]:
    kept = {"digest", "length", "precision", "recipe"}
    runtime = runtime_of(artifact.kind, artifact.session.runtime)
    described = artifact.model_dump(mode="json", include=kept)
    return {**described, "target": artifact.target.name, "runtime": runtime.value}


def _speedups(stats: Mapping[str, LatencyStats]) -> dict[str, Any]:
    shipped = stats[SHIPPED]
    gains = {name: speedup(entry, shipped) for name, entry in stats.items() if name != SHIPPED}
    return {
        name: {"ratio": gain.ratio, "low": gain.low, "high": gain.high}
        for name, gain in gains.items()
    }


def _accuracy(answers: Mapping[str, Answers], same: Mapping[str, Answers]) -> dict[str, Any]:
    """Judge both INT8 files as the build does, dividing the risk between the two.

    Args:
        answers: scored by what is right.
        same: scored by what FP32 answers.
    """
    judged = {}
    for name in (SHIPPED, PER_TENSOR):
        evidence = evidence_of(answers[FP32], answers[name], Top1())
        verdict = accuracy_verdict(evidence, alpha=0.05 / 2)
        judged[name] = {
            "verdict": verdict.verdict.value,
            "reference": value_of(answers[FP32], Top1()),
            "candidate": value_of(answers[name], Top1()),
            "loss": verdict.loss,
            "loss_bound": verdict.loss_bound,
            "agreement": value_of(same[name], Top1("agreement")),
            "samples": verdict.samples,
            "reason": verdict.reason,
        }
    return judged


def _write(result: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    table = markdown(result)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"\n{table}\n{path}")


if __name__ == "__main__":
    main()
