"""``stoker build`` as a user meets it: real processes, real exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.builder_models import SHAPE, factory
from support.tiny_build import MODELS

FAST = [
    *("--data", f"{MODELS}:dataset", "--name", "tiny", "--version", "1.0.0", "--counter", "1"),
    *("--latency-s", "0.1", "--emulation-budget-s", "0", "--quick"),
]


def stoker_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "stoker_cli.main", "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_a_build_prints_its_table_and_what_ships(tmp_path: Path, tiny_onnx: Path) -> None:
    """The table names every candidate, and the folder is where it says."""
    one = ("--targets", "x86-64-vnni")
    ended = stoker_build("--model", tiny_onnx, *FAST, *one, "--output", tmp_path / "release")

    assert ended.returncode == 0, ended.stderr
    for text in ("x86-64-vnni", "int8-perchannel", "SHIPS", "tiny/1.0.0 is in", "Why not"):
        assert text in ended.stdout
    assert (tmp_path / "release" / "manifest.json").exists()


def test_json_is_all_that_is_on_standard_output(tmp_path: Path, tiny_onnx: Path) -> None:
    """``--json`` can be piped: bars and notes go to standard error."""
    ended = stoker_build(
        *("--model", tiny_onnx, *FAST, "--output", tmp_path / "release"),
        *("--precision", "fp32", "--targets", "x86-64-v3", "--json"),
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["release"] == "tiny/1.0.0"


def test_an_error_is_a_code_and_a_hint_without_a_traceback(tmp_path: Path) -> None:
    """A mistake ends with status 1 and two lines that help."""
    ended = stoker_build("--model", "nowhere.onnx", *FAST, "--output", tmp_path / "release")

    assert ended.returncode == 1
    assert "MODEL_MISSING" in ended.stderr
    assert "check the path of --model" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "release").exists()


def test_a_malformed_data_argument_is_refused(tmp_path: Path) -> None:
    """Arguments of the data set are key=value."""
    ended = stoker_build(
        "--model", "m.onnx", *FAST, "--output", tmp_path / "release", "--data-arg", "nonsense"
    )

    assert ended.returncode == 1
    assert "--data-arg key=value" in ended.stderr


@pytest.mark.parametrize("shape", ["x", "x=", "=1,2", "x=1,-2", "x=1;2"])
def test_a_malformed_shape_is_refused(tmp_path: Path, shape: str) -> None:
    """Shapes are name=1,3,224,224."""
    ended = stoker_build(
        "--model", "m.onnx", *FAST, "--output", tmp_path / "release", "--shape", shape
    )

    assert ended.returncode == 1
    assert "--shape name=1,3,224,224" in ended.stderr


@pytest.mark.slow
def test_a_file_of_pytorch_becomes_a_release_when_it_is_trusted(tmp_path: Path) -> None:
    """``--trust-model-code`` builds from a ``torch.export`` archive; without it nothing opens."""
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(factory(), (torch.ones(SHAPE),)), path)
    command = ["--model", path, *FAST, "--output", tmp_path / "release", "--precision", "fp32"]

    refused = stoker_build(*command)
    trusted = stoker_build(*command, "--trust-model-code", "--shape", "x=1,3,16,16")

    assert refused.returncode == 1
    assert "UNSAFE_FORMAT" in refused.stderr
    assert trusted.returncode == 0, trusted.stderr
    assert "without network" in trusted.stderr
