"""The TensorRT engine on a fake GPU: lanes, shapes, copies and what goes wrong."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.tensorrt.compile_child import compile_job
from stoker_builder.tensorrt.settings import CompileJob, CompileSettings, ShapeRange
from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from stoker_engine.engine import EngineError, EngineLostError
from stoker_engine.tensorrt_backend import TensorRtEngine
from stoker_engine.tensorrt_library import Library, meaning
from support.fake_cuda import FakeCuda
from support.recorded_tensorrt import recorded_tensorrt

BATCHES = ShapeRange(min=(1, 3, 32, 32), opt=(2, 3, 32, 32), max=(4, 3, 32, 32))


class Bench:
    """A plan of TensorRT 10.3 for a fake GPU."""

    def __init__(self, graph: Path, folder: Path, cuda: FakeCuda, **settings: object) -> None:
        self.cuda = cuda
        self.library: Library = recorded_tensorrt("10.3.0", cuda)
        self.plan = folder / "x.plan"
        wanted = CompileSettings.model_validate({"runtime": Runtime.TENSORRT, **settings})
        job = CompileJob(settings=wanted, onnx=str(graph), plan=str(self.plan))
        compile_job(job, self.library)

    def engine(self, session: SessionOptions | None = None) -> TensorRtEngine:
        """The engine."""
        return TensorRtEngine(str(self.plan), session or SessionOptions(), self.library, self.cuda)


@pytest.fixture
def bench(tmp_path: Path, graphs: dict[str, Path]) -> Bench:
    """A plan with fixed shapes."""
    return Bench(graphs["fp16"], tmp_path, FakeCuda())


@pytest.fixture
def dynamic(tmp_path: Path, graphs: dict[str, Path]) -> Bench:
    """A plan for batches of 1 to 4."""
    return Bench(graphs["fp16-dynamic"], tmp_path, FakeCuda(), profile={"x": BATCHES})


def image(value: float, batch: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full((batch, 3, 32, 32), value, np.float32)


def test_a_discrete_gpu_gets_copies_and_a_shared_memory_none(
    tmp_path: Path, graphs: dict[str, Path]
) -> None:
    """On a Jetson the processor and the GPU look at the same bytes."""
    copies = {}
    for integrated in (False, True):
        cuda = FakeCuda(integrated=integrated)
        engine = Bench(graphs["fp16"], tmp_path, cuda).engine()
        (answer,) = engine.run({"x": image(4)}, ["scores"])
        np.testing.assert_array_equal(answer, np.full((1, 10), 8, np.float32))
        copies[integrated] = cuda.copies

    assert copies == {False: 2, True: 0}


def test_parallel_runs_do_not_see_each_other(bench: Bench) -> None:
    """Each run that may go on at a time has its own context, stream and buffers."""
    engine = bench.engine(SessionOptions(parallel_runs=3))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: engine.run({"x": image(n)}, ["scores"])[0], range(60)))

    assert [float(answer[0, 0]) for answer in answers] == [2.0 * n for n in range(60)]
    assert len(bench.library.world.contexts) == len(bench.cuda.queues) == 3


def test_an_answer_stays_what_it_was(bench: Bench) -> None:
    """The next run writes into the same buffer, and not into an answer that was given."""
    engine = bench.engine()
    (first,) = engine.run({"x": image(1)}, ["scores"])
    engine.run({"x": image(5)}, ["scores"])

    assert float(first[0, 0]) == 2.0


def test_buffers_are_bound_once_for_the_largest_shape(dynamic: Bench) -> None:
    """Changing batches allocate nothing and move nothing."""
    engine = dynamic.engine()
    before = len(dynamic.cuda.buffers)
    for batch in (1, 4, 2):
        (answer,) = engine.run({"x": image(batch, batch)}, ["scores"])
        np.testing.assert_array_equal(answer, np.full((batch, 10), 2 * batch, np.float32))

    assert len(dynamic.cuda.buffers) == before
    assert max(buffer.host.nbytes for buffer in dynamic.cuda.buffers) == image(0, 4).nbytes


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": image(1, 2)},
        {"x": image(1)[0]},
        {"x": image(1).astype(np.float64)},
        {},
    ],
    ids=["batch", "rank", "type", "missing"],
)
def test_an_input_that_does_not_fit_is_the_callers_fault(
    bench: Bench, inputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
) -> None:
    """The run is refused, and the next one is answered."""
    engine = bench.engine()
    with pytest.raises(EngineError) as refused:
        engine.run(inputs, ["scores"])

    assert refused.value.code is ReasonCode.BAD_REQUEST
    assert float(engine.run({"x": image(1)}, ["scores"])[0][0, 0]) == 2.0


def test_a_batch_outside_the_profile_is_refused(dynamic: Bench) -> None:
    """The range of the plan is the range of the requests; the engine reports it and says so."""
    engine = dynamic.engine()
    (taken,) = engine.io.inputs

    assert (taken.smallest, taken.largest) == (BATCHES.min, BATCHES.max)
    with pytest.raises(EngineError, match=r"within \[1, .*\] and \[4, .*does not fit") as refused:
        engine.run({"x": image(1, 5)}, ["scores"])
    assert refused.value.code is ReasonCode.BAD_REQUEST


def test_a_graph_is_recorded_once_and_replayed(bench: Bench) -> None:
    """The first run sets things up and is not recorded."""
    engine = bench.engine(SessionOptions(cuda_graph=True))

    answers = [engine.run({"x": image(n)}, ["scores"])[0][0, 0] for n in range(5)]

    assert [float(answer) for answer in answers] == [0, 2, 4, 6, 8]
    assert bench.cuda.replays == 5


def test_a_graph_of_changing_shapes_is_refused(dynamic: Bench) -> None:
    """A recording has the addresses and sizes of one shape."""
    with pytest.raises(EngineError, match="fixed shapes") as refused:
        dynamic.engine(SessionOptions(cuda_graph=True))
    assert refused.value.code is ReasonCode.LOAD_ERROR


def test_a_full_gpu_is_a_matter_of_memory(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """Which is worth trying again, unlike a plan that is wrong."""
    bench = Bench(graphs["fp16"], tmp_path, FakeCuda(room_bytes=1000))
    with pytest.raises(EngineError) as refused:
        bench.engine()
    assert refused.value.code is ReasonCode.MEMORY


def test_a_gpu_that_faulted_ends_the_engine(bench: Bench) -> None:
    """Every later call would fail as well: the process has to be started again."""
    engine = bench.engine()
    bench.cuda.broken = True
    with pytest.raises(EngineLostError):
        engine.run({"x": image(1)}, ["scores"])


def test_a_run_that_the_library_refuses_is_that_runs_failure(bench: Bench) -> None:
    """It goes on with the next one."""
    engine = bench.engine()
    bench.library.world.refuse_run = True
    with pytest.raises(EngineError) as refused:
        engine.run({"x": image(1)}, ["scores"])
    bench.library.world.refuse_run = False

    assert refused.value.code is ReasonCode.RUN_ERROR
    assert float(engine.run({"x": image(1)}, ["scores"])[0][0, 0]) == 2.0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            "Error Code 1: Serialization (stdVersionRead failed.Version tag does not match.)",
            ReasonCode.PLAN_MISMATCH,
        ),
        (
            "The engine plan file is generated on an incompatible device, please rebuild.",
            ReasonCode.PLAN_MISMATCH,
        ),
        (
            "createInferRuntime: Error Code 6: (CUDA initialization failure with error: 35)",
            ReasonCode.NO_GPU,
        ),
        (
            "Requested amount of GPU memory (268435456 bytes) could not be allocated.",
            ReasonCode.MEMORY,
        ),
        (
            "The engine header does not conform to the expected format for TensorRT-RTX.",
            ReasonCode.UNSAFE_MODEL,
        ),
        ("Assertion mContext failed", ReasonCode.LOAD_ERROR),
    ],
)
def test_what_the_library_says_becomes_a_code(bench: Bench, said: str, code: ReasonCode) -> None:
    """It gives no codes of its own; what it says goes into the detail."""
    bench.library.world.refuse_plan = said
    with pytest.raises(EngineError) as refused:
        bench.engine()

    assert refused.value.code is code
    assert said[:60] in refused.value.detail


def test_silence_means_what_the_caller_says() -> None:
    """No message, no guess."""
    assert meaning((), ReasonCode.RUN_ERROR) is ReasonCode.RUN_ERROR
