"""The worker process, spoken to in frames: it loads what it was promised, or says why not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import DType, EngineIO, SessionOptions, TensorSpec
from stoker_contract.target import ArtifactKind, Runtime
from support import models
from support.engine_process import EngineProcess

X = np.array([[1, 2, 3, 4]], np.float32)


def test_a_run_goes_through_the_ring(tmp_path: Path) -> None:
    """Handshake, inputs in, outputs out, in the worker's own process."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        handshake = engine.handshake()
        engine.send_run(1, [X])

        assert (handshake.digest, handshake.io) == (spec.digest, spec.io)
        assert handshake.pid == engine.process.pid
        np.testing.assert_array_equal(engine.output(), X * 3)


def test_parallel_runs_share_one_session(tmp_path: Path) -> None:
    """With two parallel runs a short one is answered while a long one goes on."""
    spec = models.slow().put(tmp_path, "m/1.0", SessionOptions(parallel_runs=2))
    with EngineProcess(spec) as engine:
        engine.handshake()
        engine.send_run(1, [models.turns_for(10)], slot=0)
        engine.send_run(2, [X], slot=1)

        assert hop.unpack_answer(engine.receive()).run_id == 2


def test_the_bytes_are_hashed_before_they_are_loaded(tmp_path: Path) -> None:
    """One changed byte, and no runtime sees the file."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    data = bytearray(Path(spec.path).read_bytes())
    data[-1] ^= 1
    with EngineProcess(spec, bytes(data)) as engine:
        assert engine.refusal().code is ReasonCode.DIGEST_MISMATCH


def test_the_length_is_checked_first(tmp_path: Path) -> None:
    """A file of another size is not even hashed."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec, b"short") as engine:
        refusal = engine.refusal()

        assert refusal.code is ReasonCode.DIGEST_MISMATCH
        assert "5 bytes" in refusal.detail


def test_an_unsafe_model_is_refused_before_the_runtime(tmp_path: Path) -> None:
    """External data is refused by the scan, whoever signed it."""
    spec = models.external().put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        assert engine.refusal().code is ReasonCode.UNSAFE_MODEL


def test_a_kind_without_a_runtime_is_refused(tmp_path: Path) -> None:
    """A backend that is not there says so."""
    session = SessionOptions(runtime=Runtime.TENSORRT)
    spec = models.scale(2).put(tmp_path, "m/1.0", session)
    with EngineProcess(spec) as engine:
        assert engine.refusal().code is ReasonCode.LOAD_ERROR


def test_what_calls_itself_a_plan_is_looked_at_first(tmp_path: Path) -> None:
    """An ONNX file under the name of a plan does not reach TensorRT."""
    spec = models.scale(2).put(tmp_path, "m/1.0")
    spec = spec.model_copy(update={"kind": ArtifactKind.TENSORRT_PLAN})
    with EngineProcess(spec) as engine:
        assert engine.refusal().code is ReasonCode.UNSAFE_MODEL


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t.model_copy(update={"name": "z"}),
        lambda t: t.model_copy(update={"dtype": DType.FP64}),
        lambda t: t.model_copy(update={"shape": (1, 5)}),
        lambda t: t.model_copy(update={"shape": (1, 4, 1)}),
        lambda t: t.model_copy(update={"shape": (-1, 4)}),
    ],
)
def test_tensors_must_be_those_of_the_manifest(
    tmp_path: Path, other: Callable[[TensorSpec], TensorSpec]
) -> None:
    """A model with other tensors than promised is refused with both said."""
    spec = models.scale(2).put(tmp_path, "m/1.0")
    io = EngineIO(inputs=(other(spec.io.inputs[0]),), outputs=spec.io.outputs)
    with EngineProcess(spec.model_copy(update={"io": io})) as engine:
        refusal = engine.refusal()

        assert refusal.code is ReasonCode.LOAD_ERROR
        assert "manifest" in refusal.detail


def test_a_manifest_may_fix_what_the_model_leaves_open(tmp_path: Path) -> None:
    """A dimension that the model leaves to the caller may be fixed for a release."""
    spec = models.dynamic().put(tmp_path, "m/1.0")
    fixed = TensorSpec(name="x", dtype=DType.FP32, shape=(2, 3))
    io = EngineIO(inputs=(fixed,), outputs=spec.io.outputs)
    with EngineProcess(spec.model_copy(update={"io": io})) as engine:
        assert engine.handshake().io.inputs[0].shape == (-1, 3)


def test_a_failed_run_does_not_end_the_worker(tmp_path: Path) -> None:
    """What the runtime refuses is the run's failure; the next one is answered."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        engine.handshake()
        engine.send_run(1, [np.ones((1, 2), np.float32)])
        run_id, refusal = hop.unpack_failure(engine.receive())
        engine.send_run(2, [X])

        assert (run_id, refusal.code) == (1, ReasonCode.BAD_REQUEST)
        np.testing.assert_array_equal(engine.output(), X * 3)


def test_a_memory_bomb_fails_its_run_only(tmp_path: Path) -> None:
    """Under its limit the allocation fails, the process stays."""
    spec = models.memory_bomb().put(tmp_path, "m/1.0")
    with EngineProcess(spec).having(memory_limit_bytes=512 * 1024**2) as engine:
        engine.handshake()
        engine.send_run(1, [X])

        assert hop.unpack_failure(engine.receive())[1].code is ReasonCode.MEMORY
        assert engine.process.poll() is None


def test_a_worker_ends_with_its_server(tmp_path: Path) -> None:
    """When the socket closes, the worker ends by itself."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        engine.handshake()
        engine.channel.close()

        assert engine.process.wait(10) == 0


def test_a_worker_leaves_sigterm_to_its_server(tmp_path: Path) -> None:
    """A service manager that signals everybody does not cut requests."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        engine.handshake()
        engine.process.send_signal(signal.SIGTERM)
        engine.send_run(1, [X])

        np.testing.assert_array_equal(engine.output(), X * 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes privileges")
def test_a_privileged_worker_has_no_network(tmp_path: Path) -> None:
    """Where it is permitted, the worker sees no interface but an idle loopback."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec) as engine:
        engine.handshake()
        interfaces = Path(f"/proc/{engine.process.pid}/net/dev").read_text().splitlines()[2:]

        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_a_candidate_holds_back(tmp_path: Path) -> None:
    """Niceness and the kernel's memory score are as the start frame asks."""
    spec = models.scale(3).put(tmp_path, "m/1.0")
    with EngineProcess(spec).having(niceness=10, oom_score_adj=800) as engine:
        engine.handshake()
        proc = Path(f"/proc/{engine.process.pid}")

        assert os.getpriority(os.PRIO_PROCESS, engine.process.pid) == min(os.nice(0) + 10, 19)
        assert (proc / "oom_score_adj").read_text().strip() == "800"
