"""``scripts/jetson-check``: runs through on any machine, and says what is missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from stoker_builder.errors import BuildCode
from stoker_builder.models.entrypoints import load_entry
from stoker_builder.profiling.operators import OperatorProfile
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Profile
from support.environments import ROOT
from support.stand_in_prover import OPERATORS

MODELS = ROOT / "benchmarks" / "board" / "models"


def part(name: str) -> Any:  # noqa: ANN401 - benchmarks are programs, not packages
    """Something of the check."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return load_entry(f"benchmarks.board.{name}", BuildCode.DATA_ENTRY)


def test_it_runs_through_and_says_what_is_missing(tmp_path: Path) -> None:
    """One file: each step was done or has its reason, and what could be timed has figures."""
    path = tmp_path / "check.md"
    done = subprocess.run(
        [ROOT / "scripts" / "jetson-check", "--output", path, "--seconds", "0.05"],
        env={**os.environ, "STOKER_BOARD_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = part("text:read")(path.read_text())
    steps = {step["name"]: step for step in told["steps"]}
    assert all(step["said"] for step in told["steps"])
    assert {"board", "CUDA", "target", "tensorrt", "tensorrt-rtx", "latency"} <= set(steps)
    assert steps["load: onnxruntime, fp32, processor"]["done"]
    assert told["latency"]["onnxruntime, fp32, processor"]["samples"] > 0
    for name, step in steps.items():
        assert f"| {name} |" in path.read_text()
        assert "traceback" not in step["facts"], step
    if steps["tensorrt-rtx"]["done"]:
        assert steps["header: tensorrt-rtx, int8"]["done"]
        loaded = steps["load: tensorrt-rtx, fp16"]
        assert loaded["done"] or loaded["said"].startswith(("NO_GPU", "PLAN_MISMATCH"))


def test_no_step_ends_the_check() -> None:
    """A surprise is written down like a reason, with where it happened."""
    told: list[Any] = []
    steps = part("step:Steps")(told.append)
    not_done: Callable[[str], Exception] = part("step:NotDoneError")

    def fails(error: Exception) -> Callable[[dict[str, object]], None]:
        def work(_: dict[str, object]) -> None:
            raise error

        return work

    assert steps.attempt("surprise", fails(ZeroDivisionError("by zero"))) is None
    assert steps.attempt("reason", fails(not_done("there is no GPU"))) is None
    assert steps.attempt("good", lambda facts: facts.update(said="42")) is None

    assert [(step.done, step.said) for step in told] == [
        (False, "ZeroDivisionError: by zero"),
        (False, "there is no GPU"),
        (True, "42"),
    ]
    assert "raise error" in told[0].facts["traceback"]


def held(told: OperatorProfile | Exception | None, *, tells: bool = True) -> SimpleNamespace:
    """An engine of the check whose profiler says so."""

    def layers() -> OperatorProfile | None:
        if isinstance(told, Exception):
            raise told
        return told

    return SimpleNamespace(tells_layers=tells, layers=layers)


def test_the_file_says_which_layers_take_the_time() -> None:
    """In a line, with all that the profiler told beside it; silence and crashes have reasons."""
    told: list[Any] = []
    gone = part("step:NotDoneError")("its process ended with -6")
    engines = {
        "fp16": held(OPERATORS),
        "fp16, CUDA graph": held(OPERATORS, tells=False),
        "silent": held(None),
        "crashed": held(gone),
    }

    part("plans:look_into_all")(part("step:Steps")(told.append), engines)

    assert {step.name: (step.done, step.said) for step in told} == {
        "layers: fp16": (
            True,
            "1.500 ms: CaskConvolution 100%; most in Conv_0 + Relu_1, 1.500 ms",
        ),
        "layers: silent": (False, "its library tells nothing of its layers"),
        "layers: crashed": (False, "its process ended with -6"),
    }
    assert told[0].facts["operators"] == OPERATORS.to_object()


def test_an_engine_that_is_no_plan_has_no_layers_to_tell() -> None:
    """It says so in its process, and goes on."""
    session = SessionOptions()
    engine = part("engines:HeldEngine")(MODELS / "fp32.onnx", ArtifactKind.ONNX, session)
    try:
        assert not engine.tells_layers
        assert engine.layers() is None
        assert len(engine.burst(2).samples_ns) == 2
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "orin-nano-8gb-jp62"),
        ({"l4t": "39.2.0", "tensorrt": "10.16.2"}, "orin-nano-8gb-jp72"),
        ({"module": None, "l4t": None, "arch": "x86_64", "gpu_sm": "89"}, "rtx-sm89"),
    ],
    ids=["jetpack-6.2", "jetpack-7.2", "rtx"],
)
def test_a_board_gets_the_name_that_stoker_has_for_it(changes: dict[str, Any], name: str) -> None:
    """The target to build for is in the file."""
    board = {"arch": "aarch64", "module": "orin-nano-8gb", "gpu_sm": "87", "cuda": "12.6"}
    told = {**board, "l4t": "36.4.3", "tensorrt": "10.3.0", **changes}
    profile = Profile.parse_object({key: value for key, value in told.items() if value})

    facts: dict[str, object] = {}
    part("machine:target")(profile, facts)

    assert facts["said"] == name


def test_the_models_are_those_of_the_script(tmp_path: Path) -> None:
    """Made again they answer the same: nobody has to trust a file."""
    part("make_models:main")(tmp_path)
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)

    for name in ("fp32", "fp16", "int8"):
        old, new = (
            ort.InferenceSession(folder / f"{name}.onnx").run(None, {"x": x})[0]
            for folder in (MODELS, tmp_path)
        )
        np.testing.assert_allclose(new, old, atol=0.05)


def test_an_engine_may_say_as_much_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries for GPUs do, and nobody reads it unless the engine ends."""
    monkeypatch.setenv("PYTHONVERBOSE", "2")
    held = part("engines:HeldEngine")
    engine = held(MODELS / "fp32.onnx", ArtifactKind.ONNX, SessionOptions())
    engine.close()

    assert engine.answers.shape == (16, 10)


def test_what_is_sent_has_no_names_of_folders() -> None:
    """The words of an error have paths in them, and those the name of a person."""
    error = "FileNotFoundError: /home/j\u00f6rg/stoker/x.plan, see /home/j\u00f6rg/.cache"
    step = {"name": "load", "done": False, "said": error, "seconds": 0.0, "facts": {}}
    text = part("text:document")({"at": "now", "steps": [step], "latency": {}})
    places = {"/home/j\u00f6rg/stoker": "stoker", "/home/j\u00f6rg": "~", "/": "root"}

    sent = part("text:without_places")(text, places)

    assert "home" not in sent
    assert "j\\u00f6rg" not in sent
    assert part("text:read")(sent)["steps"][0]["said"].endswith("stoker/x.plan, see ~/.cache")
