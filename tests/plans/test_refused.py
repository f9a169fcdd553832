"""Plans that must not run here: refused by real workers, before anything of NVIDIA's is touched."""

import hashlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.tensorrt.compiler import Compiled, compile_plan
from stoker_builder.tensorrt.settings import CompileSettings
from stoker_client import Client
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_contract.manifest import Precision, SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from support import engine_with_lean, engine_without_tensorrt, models
from support.engine_process import EngineProcess
from support.server_process import ServerProcess
from support.waiting import wait_until

pytestmark = pytest.mark.rtx

WATCHED = (sys.executable, engine_without_tensorrt.__file__)
LEAN = (sys.executable, engine_with_lean.__file__)
VERSION_AT = 25  # of the minor number


@dataclass(frozen=True)
class Plans:
    """A real plan of TensorRT-RTX and what it takes to serve it."""

    compiled: Compiled
    folder: Path

    def spec(
        self, data: bytes | None = None, runtime: Runtime = Runtime.TENSORRT_RTX
    ) -> EngineSpec:
        """The spec of a plan, or of what became of it, as if somebody had signed it."""
        data = self.compiled.path.read_bytes() if data is None else data
        path = self.folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return EngineSpec(
            digest=path.name,
            length=len(data),
            path=str(path),
            release="m/1.0",
            kind=ArtifactKind.TENSORRT_PLAN,
            precision=Precision.FP16,
            io=self.compiled.io,
            session=SessionOptions(runtime=runtime),
        )

    def changed(self, at: int, bit: int = 1) -> bytes:
        """The plan with one bit changed."""
        data = bytearray(self.compiled.path.read_bytes())
        data[at] ^= bit
        return bytes(data)


@pytest.fixture
def plans(tmp_path: Path, graphs: dict[str, Path]) -> Plans:
    """A plan for a GPU that most machines have not got."""
    settings = CompileSettings(runtime=Runtime.TENSORRT_RTX, compute_capability="89")
    return Plans(compile_plan(graphs["fp16"], tmp_path / "x.plan", settings), tmp_path)


def test_a_flipped_bit_is_found_before_any_runtime(plans: Plans) -> None:
    """Wherever it is: the bytes are not those that were signed."""
    for at in (0, 17, VERSION_AT, 70_000):
        with EngineProcess(plans.spec(), plans.changed(at), WATCHED) as engine:
            assert engine.refusal().code is ReasonCode.DIGEST_MISMATCH
            assert engine.process.wait(10) == 1


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda p: p.compiled.path.read_bytes()[:-100], ReasonCode.UNSAFE_MODEL),
        (lambda p: p.compiled.path.read_bytes()[:40], ReasonCode.UNSAFE_MODEL),
        (lambda p: p.compiled.path.read_bytes() + b"more", ReasonCode.UNSAFE_MODEL),
        (lambda p: b"PK\x03\x04" + p.compiled.path.read_bytes()[4:], ReasonCode.UNSAFE_MODEL),
        (lambda p: b"ftrt" + p.compiled.path.read_bytes()[4:], ReasonCode.PLAN_MISMATCH),
        (lambda p: p.changed(VERSION_AT, 8), ReasonCode.PLAN_MISMATCH),
    ],
    ids=["cut", "stub", "longer", "foreign", "of-tensorrt", "of-another-version"],
)
def test_what_was_signed_wrong_is_refused_by_its_header(
    plans: Plans,
    damage: Callable[[Plans], bytes],
    code: ReasonCode,
) -> None:
    """The digest holds, the header does not: no runtime and no CUDA is imported."""
    with EngineProcess(plans.spec(damage(plans)), None, WATCHED) as engine:
        refusal = engine.refusal()

        assert refusal.code is code
        assert engine.process.wait(10) == 1


def test_without_a_gpu_a_good_plan_is_refused_in_words(plans: Plans) -> None:
    """CUDA is asked before the library is; on a machine with a GPU it may be the wrong one."""
    with EngineProcess(plans.spec()) as engine:
        refusal = engine.refusal()

        assert refusal.code in {ReasonCode.NO_GPU, ReasonCode.PLAN_MISMATCH}
        assert "CUDA" in refusal.detail
        assert engine.process.wait(10) == 1


def test_a_library_that_crashes_takes_only_its_own_process(plans: Plans, short_tmp: Path) -> None:
    """A real TensorRT runtime crashes at a plan when there is no GPU; the server goes on."""
    with EngineProcess(plans.spec(), None, LEAN) as engine:
        assert engine.receive() == b""
        crashed = engine.process.wait(30)
    if crashed == 1:
        pytest.skip("there is a GPU here: the library refuses the plan and does not crash")
    assert crashed == -signal.SIGSEGV

    server = ServerProcess(short_tmp, engine=LEAN)
    server.write_slot("m", plans.spec())
    with server:
        wait_until(lambda: server.seen("engine.not_started"), 30, "the engine crashed")
        assert server.request("GET", "/v2/health/live")[0] == HTTPStatus.OK


def test_a_plan_of_the_runtime_before_an_upgrade_gives_way_to_the_fallback(
    plans: Plans, short_tmp: Path
) -> None:
    """The slot serves its portable artifact, and says that it is degraded, and why."""
    server = ServerProcess(short_tmp)
    old = plans.spec(plans.changed(VERSION_AT, 8))
    server.write_slot("m", old, fallback=models.scale(2).put(server.store, "m/1.0"))
    with server:
        server.wait_ready("m")
        with Client("m", socket=server.socket_path) as client:
            answer = client.infer({"x": np.ones((1, 4), np.float32)})
        status = server.control().status("m")

    np.testing.assert_array_equal(answer["y"], np.full((1, 4), 2, np.float32))
    assert status.degraded
    assert status.reason is ReasonCode.PLAN_MISMATCH
    assert "1.15.1.116, this device has 1.7.1.116" in status.detail
