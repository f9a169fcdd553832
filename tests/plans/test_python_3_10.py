"""Compiling plans on Python 3.10, the one that JetPack 6 has a TensorRT for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import compile_plans
from support.environments import ROOT, environment, plan_builder, python_3_10

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.mark.timeout(600)  # the first run installs the packages
def test_the_same_plans_come_from_python_3_10(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """Each precision, byte for byte what the Python of the other tests compiles."""
    python = python_3_10()
    if python is None:
        pytest.skip("there is no Python 3.10 with the venv module on this machine")
    onnx = environment("python3.10-onnx", ["onnx>=1.17"], python).parents[1]
    chosen = [graphs[precision] for precision in PRECISIONS]

    packages = str(onnx / "lib" / "python3.10" / "site-packages")
    old = compiled(str(plan_builder(python)), tmp_path / "old", chosen, packages)
    new = compiled(sys.executable, tmp_path / "new", chosen)

    assert (old["python"], new["python"]) == ([3, 10], list(sys.version_info[:2]))
    assert {**old, "python": 0} == {**new, "python": 0}
    assert old["quantised"] == [False, False, True]
    for precision in PRECISIONS:
        one, other = (tmp_path / name / f"{precision}.plan" for name in ("old", "new"))
        assert one.read_bytes() == other.read_bytes()


def compiled(python: str, folder: Path, graphs: list[Path], *packages: str) -> dict[str, object]:
    """What the compiler says under an interpreter; its plans are in the folder."""
    folder.mkdir()
    ours = (str(ROOT / part) for part in ("contract", "agent", "builder", "tests"))
    done = subprocess.run(
        [python, compile_plans.__file__, str(folder), *map(str, graphs)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((*ours, *packages))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, object] = json.loads(done.stdout)
    return said
