"""``stoker inspect``, ``diff``, ``report`` and ``bench``: looking at what was built."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from stoker_builder.bench import BuildResult
from stoker_builder.inspection.differences import differences
from stoker_builder.inspection.look import look_at
from stoker_builder.inspection.onnx_facts import onnx_facts


def stoker(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "stoker_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def renamed(tiny_onnx: Path, tmp_path: Path) -> Path:
    """The tiny model with another name for its output, and one changed weight."""
    model = onnx.load(tiny_onnx)
    name = model.graph.output[0].name
    model.graph.output[0].name = "scores"
    for node in model.graph.node:
        node.output[:] = ["scores" if output == name else output for output in node.output]
    weight = next(t for t in model.graph.initializer if t.raw_data)
    weight.raw_data = bytes(len(weight.raw_data))
    path = tmp_path / "renamed.onnx"
    onnx.save(model, path)
    return path


def test_a_file_is_described(tiny_onnx: Path) -> None:
    """Tensors, operators and weights of a file that nobody ran."""
    facts = onnx_facts(tiny_onnx)

    assert facts.inputs[0].name == "x"
    assert facts.inputs[0].shape == ("1", "3", "16", "16")
    assert facts.operators["Conv"] == 3
    assert facts.quantisation.style == "none"
    assert facts.weight_bytes["float"] > 1000


class Noise(CalibrationDataReader):  # type: ignore[misc]  # the tools have no types
    """Two samples to calibrate with."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left = [rng.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(2)]

    def get_next(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None:
        return {"x": self._left.pop()} if self._left else None


def test_a_quantised_file_is_known_as_one(tiny_onnx: Path, tmp_path: Path) -> None:
    """Its style, its scales and the share of eight bits."""
    int8 = tmp_path / "int8.onnx"
    quantize_static(tiny_onnx, int8, Noise(), per_channel=True)

    facts = onnx_facts(int8)

    assert facts.quantisation.style == "QDQ"
    assert facts.quantisation.int8_share > 0.5
    assert facts.quantisation.per_channel > 0


def test_a_release_is_shown_whole(built: BuildResult) -> None:
    """Targets, accuracy, golden sets and the files themselves."""
    ended = stoker("inspect", built.output)

    assert ended.returncode == 0, ended.stderr
    for text in ("tiny/1.0.0", "x86-64-vnni", "golden set", "fp32.onnx", "operators", "accuracy"):
        assert text in ended.stdout
    assert "missing" not in ended.stdout


def test_inspection_is_for_machines_too(built: BuildResult) -> None:
    """``--json`` has the manifest and every file's facts."""
    told = json.loads(stoker("inspect", built.output, "--json").stdout)

    assert told["kind"] == "release"
    assert told["manifest"]["model"] == "tiny"
    assert told["missing"] == []
    assert all(facts["operators"] for facts in told["files"].values())


def test_files_that_a_manifest_promises_are_missed(built: BuildResult, tmp_path: Path) -> None:
    """A folder with the manifest alone says what is not there."""
    (tmp_path / "manifest.json").write_bytes((built.output / "manifest.json").read_bytes())

    assert "missing: " in stoker("inspect", tmp_path).stdout


def test_a_thing_does_not_differ_from_itself(built: BuildResult) -> None:
    """Nothing is found, and the status is that of ``diff``."""
    ended = stoker("diff", built.output, built.output)

    assert ended.returncode == 0
    assert "No differences." in ended.stdout


def test_changes_of_a_file_are_named(tiny_onnx: Path, renamed: Path) -> None:
    """A renamed output and a changed weight, by their names."""
    found = differences(look_at(tiny_onnx), look_at(renamed))

    places = {one.where for one in found}
    assert ("io", "output scores") in places
    assert any(place[0] == "weights" for place in places)
    ended = stoker("diff", tiny_onnx, renamed)
    assert ended.returncode == 1
    assert "+ output scores" in ended.stdout


def test_changes_between_releases_are_named(built: BuildResult, tmp_path: Path) -> None:
    """Another version with another accuracy: what changed and nothing else."""
    manifest = json.loads((built.output / "manifest.json").read_bytes())
    manifest["version"] = "1.0.1"
    manifest["artifacts"][0]["accuracy"]["candidate"] = 0.5
    other = tmp_path / "manifest.json"
    other.write_text(json.dumps(manifest))

    told = json.loads(stoker("diff", built.output / "manifest.json", other, "--json").stdout)

    assert not told["same"]
    assert [one["where"][-1] for one in told["differences"]] == ["release", "reached"]


def test_a_release_is_not_compared_with_a_file(built: BuildResult, tiny_onnx: Path) -> None:
    """Trouble has its own status, so that a script does not take it for a difference."""
    ended = stoker("diff", built.output, tiny_onnx)

    assert ended.returncode == 2
    assert "BAD_REQUEST" in ended.stderr


@pytest.mark.parametrize("command", ["inspect", "report"])
@pytest.mark.parametrize("content", [None, b"{}", b"\x00\xff"])
def test_what_is_nothing_is_refused(tmp_path: Path, command: str, content: bytes | None) -> None:
    """Missing or damaged: a code, no traceback."""
    for name in ("manifest.json", "report.json"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    ended = stoker(command, tmp_path)

    assert ended.returncode == 1
    assert ended.stderr.startswith("error ")
    assert "Traceback" not in ended.stderr


def test_names_in_a_file_can_not_steer_the_terminal(tiny_onnx: Path, tmp_path: Path) -> None:
    """An escape sequence in a name of somebody else's model is shown, not obeyed."""
    model = onnx.load(tiny_onnx)
    model.producer_name = "\x1b[2J\x1b]0;pwned\x07"
    path = tmp_path / "hostile.onnx"
    onnx.save(model, path)

    out = stoker("inspect", path).stdout
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_report_is_shown_again(built: BuildResult, tmp_path: Path) -> None:
    """The table, and the page into a file, from report.json alone."""
    ended = stoker("report", built.output)
    assert ended.returncode == 0, ended.stderr
    assert "Ships" in ended.stdout
    page = tmp_path / "page.html"
    assert stoker("report", built.output, "--format", "html", "--output", page).returncode == 0
    assert page.read_bytes() == (built.output / "report.html").read_bytes()


def test_a_fallback_for_the_same_target_is_not_overlooked(
    built: BuildResult, tmp_path: Path
) -> None:
    """Two artifacts for one target are two things to compare, and the second one is named so."""
    manifest = json.loads((built.output / "manifest.json").read_bytes())
    second = json.loads(json.dumps(manifest["artifacts"][0]))
    second["digest"] = "0" * 64
    manifest["artifacts"].insert(1, second)
    other = tmp_path / "manifest.json"
    other.write_text(json.dumps(manifest))

    found = differences(look_at(built.output / "manifest.json"), look_at(other))

    name = f"{manifest['artifacts'][0]['target']['name']}, fallback"
    assert {one.where[:2] for one in found} == {("targets", name)}


def test_a_release_is_measured_with_its_golden_inputs(built: BuildResult) -> None:
    """What this machine runs of a release is found, and its own inputs are used."""
    ended = stoker("bench", built.output, "--target", "x86-64-v3", "--limit-s", "1")

    assert ended.returncode == 0, ended.stderr
    assert "x86-64-v3" in ended.stdout
    assert "p99 at most" in ended.stdout
