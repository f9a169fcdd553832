"""OpenVINO behind the same interface: the same file, the same answers, the same refusals."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine import openvino_backend
from stoker_engine.backends import open_engine
from stoker_engine.engine import EngineError
from stoker_engine.openvino_backend import OpenVinoEngine
from support import models
from support.engine_process import EngineProcess

OPENVINO = SessionOptions(runtime=Runtime.OPENVINO)
X = np.array([[1, 2, 3, 4]], np.float32)


def test_the_manifest_chooses_the_runtime(tmp_path: Path) -> None:
    """The worker runs the same ONNX file with the runtime that its session names."""
    spec = models.scale(3).put(tmp_path, "m/1.0", OPENVINO)
    with EngineProcess(spec) as engine:
        handshake = engine.handshake()
        engine.send_run(1, [X])

        assert handshake.io == spec.io
        np.testing.assert_array_equal(engine.output(), X * 3)


def test_both_runtimes_answer_alike(tmp_path: Path) -> None:
    """What ONNX Runtime answers, OpenVINO answers, up to the order of sums."""
    spec = models.conv().put(tmp_path, "m/1.0")
    shape = spec.io.inputs[0].shape
    sample = {spec.io.inputs[0].name: np.random.default_rng(0).random(shape, np.float32)}
    wanted = [output.name for output in spec.io.outputs]

    answers = [
        open_engine(spec.path, ArtifactKind.ONNX, session).run(sample, wanted)
        for session in (SessionOptions(), OPENVINO)
    ]

    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_each_thread_has_answers_of_its_own(tmp_path: Path) -> None:
    """Runs in parallel do not write into each other's outputs."""
    spec = models.scale(2).put(tmp_path, "m/1.0", SessionOptions(parallel_runs=2))
    session = SessionOptions(runtime=Runtime.OPENVINO, parallel_runs=2)
    engine = open_engine(spec.path, ArtifactKind.ONNX, session)
    inputs = [np.full((1, 4), number, np.float32) for number in range(200)]

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda x: engine.run({"x": x}, ["y"])[0], inputs))

    for asked, answered in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answered, asked * 2)


def test_an_answer_is_not_overwritten_by_the_next(tmp_path: Path) -> None:
    """An output stays what it was when the same thread runs again."""
    spec = models.scale(2).put(tmp_path, "m/1.0")
    engine = open_engine(spec.path, ArtifactKind.ONNX, OPENVINO)

    first = engine.run({"x": X}, ["y"])[0]
    engine.run({"x": X * 5}, ["y"])

    np.testing.assert_array_equal(first, X * 2)


def test_a_failed_run_does_not_end_the_worker(tmp_path: Path) -> None:
    """A shape that the model does not take is the caller's mistake; the next run is answered."""
    spec = models.scale(3).put(tmp_path, "m/1.0", OPENVINO)
    with EngineProcess(spec) as engine:
        engine.handshake()
        engine.send_run(1, [np.ones((1, 2), np.float32)])
        run_id, refusal = hop.unpack_failure(engine.receive())
        engine.send_run(2, [X])

        assert (run_id, refusal.code) == (1, ReasonCode.BAD_REQUEST)
        np.testing.assert_array_equal(engine.output(), X * 3)


@pytest.mark.parametrize("data", [b"not a model", b"\x08"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    """The parser's complaint becomes a load error."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        open_engine(str(path), ArtifactKind.ONNX, OPENVINO)
    assert caught.value.code is ReasonCode.LOAD_ERROR


def test_an_unsafe_model_is_refused_before_the_runtime(tmp_path: Path) -> None:
    """The scan does not ask which runtime would have read the file."""
    spec = models.external().put(tmp_path, "m/1.0", OPENVINO)
    with EngineProcess(spec) as engine:
        assert engine.refusal().code is ReasonCode.UNSAFE_MODEL


def test_a_format_without_a_static_policy_is_refused(tmp_path: Path) -> None:
    """OpenVINO would read anything it knows; only what was looked through gets there."""
    spec = models.external().put(tmp_path, "m/1.0", OPENVINO)
    spec = spec.model_copy(update={"kind": ArtifactKind.OPENVINO_IR})
    with EngineProcess(spec) as engine:
        assert engine.refusal().code is ReasonCode.UNSAFE_MODEL


def test_a_runtime_that_does_not_run_the_kind_is_refused(tmp_path: Path) -> None:
    """A manifest that pairs ONNX with TensorRT is refused with both named."""
    spec = models.scale(2).put(tmp_path, "m/1.0")
    with pytest.raises(EngineError, match="tensorrt") as caught:
        open_engine(spec.path, ArtifactKind.ONNX, SessionOptions(runtime=Runtime.TENSORRT))
    assert caught.value.code is ReasonCode.LOAD_ERROR


def test_the_first_run_of_a_process_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binding fills tables then, and two threads that need one would wait for each other."""
    spec = models.scale(3).put(tmp_path, "m/1.0", OPENVINO)
    engines = [open_engine(spec.path, ArtifactKind.ONNX, OPENVINO) for _ in range(2)]
    wanted = [output.name for output in spec.io.outputs]
    inputs = {spec.io.inputs[0].name: X}
    running: list[int] = []
    together: list[int] = []
    run = OpenVinoEngine._run  # noqa: SLF001  watched

    def watched(
        engine: OpenVinoEngine, given: dict[str, np.ndarray], names: list[str]
    ) -> Sequence[np.ndarray]:
        running.append(1)
        time.sleep(0.05)
        together.append(len(running))
        answer = run(engine, given, names)
        running.pop()
        return answer

    monkeypatch.setattr(openvino_backend, "_FIRST", openvino_backend._FirstRun())  # noqa: SLF001
    monkeypatch.setattr(OpenVinoEngine, "_run", watched)
    with ThreadPoolExecutor(2) as pool:
        for answer in pool.map(lambda engine: engine.run(inputs, wanted), engines):
            np.testing.assert_array_equal(answer[0], X * 3)

    assert together[0] == 1
