"""The builder's benchmark: what its tables claim, and that the capped processor is one."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker_builder.errors import BuildCode
from stoker_builder.kernels.cap import capped_runtime
from stoker_builder.kernels.isa import VNNI, host_isa, target_runs_natively
from stoker_builder.kernels.places import cap_for
from stoker_builder.latency.stats import Burst, LatencyStats, speedup, summarise
from stoker_builder.models.entrypoints import load_entry
from stoker_builder.targets import load_target
from support.edge_device import publish

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("builder-*.json"))


def entry(name: str) -> Callable[..., Any]:
    """A function of the benchmark, which is no installed package."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return load_entry(f"benchmarks.builder.{name}", BuildCode.DATA_ENTRY)


def figures(**ms: float) -> dict[str, Any]:
    """A row in which each variant takes so long."""
    stats: dict[str, LatencyStats] = {
        name.replace("_", "-"): summarise([Burst((int(value * 1e6),) * 50)] * 8)
        for name, value in ms.items()
    }
    shown = load_entry(f"{ROOT / 'benchmarks' / 'tables.py'}:stats_object", BuildCode.DATA_ENTRY)

    def ratio(slow: str, fast: str) -> dict[str, Any]:
        gain = speedup(stats[slow], stats[fast])
        return {"ratio": gain.ratio, "low": gain.low, "high": gain.high}

    return {
        "workload": "minilm",
        "isa": "native",
        "threads": 1,
        "measured_at": "2026-01-02T03:04:05+00:00",
        "shipped": {
            "precision": "int8",
            "recipe": "dynamic",
            "length": 22_900_000,
            "target": "here",
            "session": {"runtime": None, "float_precision": "fp32"},
        },
        "latency": {name: shown(value) for name, value in stats.items()},
        "vs_eager": {name: ratio("eager", name) for name in stats},
        "shipped_vs": {name: ratio(name, "shipped") for name in stats},
        "failed": {"openvino-int8": "RuntimeError: a|b"},
    }


def result(row: dict[str, Any], **verdicts: str) -> dict[str, Any]:
    """The smallest result there can be."""
    judged = {
        name.replace("_", "-"): {
            "verdict": verdict,
            "candidate": 0.7,
            "loss": 0.001 if verdict == "PASS" else 0.4,
            "loss_bound": 0.005 if verdict == "PASS" else 0.45,
        }
        for name, verdict in verdicts.items()
    }
    return {
        "benchmark": "builder",
        "summary": "a processor",
        "rows": {"minilm/native/1": row},
        "accuracy": {
            "minilm/native": {
                "metric": "top-1",
                "reference": 0.73,
                "samples": 2365,
                "note": "unseen descriptions",
                "peers": judged,
            }
        },
    }


def test_a_peer_that_breaks_its_accuracy_is_not_the_one_to_beat() -> None:
    """The best peer is the fastest that is FP32 or certified; the others are named."""
    row = figures(eager=20, ort_fp32=10, ort_int8_static=2, ort_int8_dynamic=5, shipped=4)
    found = result(row, ort_int8_static="FAIL", ort_int8_dynamic="INCONCLUSIVE", shipped="PASS")

    stands = entry("tables:standing")(row, found["accuracy"]["minilm/native"])

    assert stands.best == "ort-fp32"
    assert stands.ratio == pytest.approx(2.5)
    assert stands.ahead == ("ort-int8-static",)


def test_a_certified_peer_counts() -> None:
    """A quantised peer that keeps its accuracy is the one to beat, and may win."""
    row = figures(eager=20, ort_fp32=10, ort_int8_dynamic=3, shipped=4)
    found = result(row, ort_int8_dynamic="PASS", shipped="PASS")

    stands = entry("tables:standing")(row, found["accuracy"]["minilm/native"])

    assert stands.best == "ort-int8-dynamic"
    assert stands.ratio == pytest.approx(0.75)


def test_what_ships_for_other_threads_is_judged_by_its_own_answers() -> None:
    """A release for two threads may hold another file than one for one."""
    row = figures(eager=20, ort_fp32=10, shipped=4)
    found = result(row)
    judged = {"verdict": "PASS", "candidate": 0.7, "loss": -0.002, "loss_bound": 0.004}
    found["accuracy"]["minilm/native"]["shipped"] = {"1": judged, "2": {**judged, "loss": 0.3}}

    assert "-0.20 (+0.40)" in entry("tables:markdown")(found)


def test_what_ships_for_more_threads_is_judged_though_all_others_were() -> None:
    """What is timed later is in the table with its own answers; what was timed stays as it is."""
    row, to_judge = entry("__main__:Row"), entry("__main__:places_to_judge")
    one, two = row("minilm", "native", 1), row("minilm", "native", 2)
    found: dict[str, Any] = {"rows": {one.key: {}}, "accuracy": {}}

    assert to_judge([one, two], found) == [one]
    found["accuracy"]["minilm/native"] = {"shipped": {"1": {}}}
    assert to_judge([one], found) == []
    assert to_judge([one, two], found) == [one]
    found["accuracy"]["minilm/native"]["shipped"]["2"] = {}
    assert to_judge([one, two], found) == []


def test_the_tables_mark_what_is_broken_and_what_could_not_run() -> None:
    """Every verdict is beside its figure, and a peer that failed is a row with its reason."""
    row = figures(eager=20, ort_fp32=10, ort_int8_static=2, shipped=4)
    table = entry("tables:markdown")(result(row, ort_int8_static="FAIL", shipped="PASS"))

    assert "| 5.0x" in table
    assert "**broken**" in table
    assert "+40.00 (+45.00)" in table
    assert "could not run: RuntimeError: a/b" in table


def test_the_staircase_descends_to_what_ships() -> None:
    """The drawing names each variant once, slowest first, and what ships last."""
    row = figures(eager=20, ort_fp32=10, ort_int8_static=2, shipped=4)
    drawing = entry("staircase:staircase")(result(row, ort_int8_static="FAIL", shipped="PASS"))

    places = [drawing.index(text) for text in ("20.00 ms", "10.00 ms", "2.00 ms", "4.00 ms")]
    assert places == sorted(places)
    assert drawing.count('class="broken"') == 1
    assert drawing.count('class="ships"') == 1


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_tables_and_drawing_are_those_of_their_figures(path: Path) -> None:
    """What is quoted can be made again from the JSON beside it."""
    found = json.loads(path.read_text("utf-8"))

    assert path.with_suffix(".md").read_text("utf-8") == entry("tables:markdown")(found)
    assert path.with_suffix(".svg").read_text("utf-8") == entry("staircase:staircase")(found)


def test_the_rows_of_the_readme_are_those_of_their_results() -> None:
    """What people read first can not fall behind what was measured."""
    shown = (ROOT / "README.md").read_text("utf-8")

    assert shown.count("<!-- rows of ") >= 2
    assert entry("readme:filled")(shown, entry("__main__:load_result")) == shown


def test_a_row_of_the_readme_says_who_is_ahead_and_why_it_does_not_count() -> None:
    """A peer whose accuracy is uncertain is named; one that is broken is not worth it."""
    row = figures(eager=20, ort_fp32=10, ort_int8_static=2, ort_int8_dynamic=3, shipped=4)
    found = result(row, ort_int8_static="FAIL", ort_int8_dynamic="INCONCLUSIVE", shipped="PASS")
    block = "<!-- rows of some-result: native -->\n<!-- end of rows -->"

    shown = entry("readme:filled")(f"before\n{block}\nafter", {"some-result": found}.__getitem__)

    assert "| 1 | 4.00 ms | 5.0x | 2.5x | 2.50x faster than ONNX Runtime FP32" in shown
    assert "not certain to keep accuracy: ONNX Runtime INT8, its dynamic default (0.75x)" in shown
    assert "static default" not in shown
    assert shown.startswith("before\n")
    assert shown.endswith("\nafter")


def test_a_row_is_measured_with_what_ships_for_its_processor() -> None:
    """This machine comes first; a capped row takes the artifact of the processor it stands for."""
    measurable, target_of = entry("processors:measurable"), entry("processors:target_of")
    rows = list(measurable())

    assert rows[0] == "native"
    assert target_runs_natively(load_target(target_of("native")).target)
    targets = [target_of(isa) for isa in rows]
    assert len(set(targets)) == len(rows)
    for isa, target in zip(rows[1:], targets[1:], strict=True):
        assert cap_for(load_target(target).target) is not None, isa


def test_what_is_measured_is_what_devices_take_first(tmp_path: Path) -> None:
    """A release may hold more for a target: what a device without OpenVINO takes, say."""
    spare = publish(tmp_path, "1.0.0", fallback=b"for other devices").manifest
    folder = tmp_path / "release-2"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(spare.encode())
    prepared = entry("prepare:Prepared")(tmp_path)

    assert len(spare.artifacts) == 2
    assert prepared.artifacts(2) == {"any": spare.artifacts[0]}
    assert prepared.artifacts(1) == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    platform.machine() != "x86_64" or not VNNI & host_isa(), reason="there is nothing to cap"
)
@pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "objdump"))), reason="the cap needs gcc and objdump"
)
def test_a_capped_process_has_a_runtime_that_was_told_a_lie() -> None:
    """In the environments that the benchmark makes, ONNX Runtime asks and is answered."""
    older = [isa for isa in entry("processors:measurable")() if isa != "native"]
    assert "avx2" in older
    for isa in older:
        capped = entry("processors:environment")(isa, capped_runtime())

        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from stoker_builder.kernels.cap import check_capped; check_capped()",
            ],
            cwd=ROOT,
            env={**os.environ, **capped},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
