"""TensorRT and TensorRT-RTX: one stream and one context for each run that may go on at a time.

The plan's header and the GPU are looked at before the library is imported: without a GPU its
runtime can be made, and crashes at the first plan. Only tensor names are used, which all releases
from 8.6 on have.
"""

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import numpy as np

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.hop import NUMPY_NAME, tensor_bytes
from stoker_contract.manifest import DType, EngineIO, SessionOptions, TensorSpec
from stoker_contract.plan_header import HEADER_BYTES, read_plan_header, why_plan_unfit
from stoker_contract.target import Runtime
from stoker_engine.cuda import Buffer, Cuda, open_cuda
from stoker_engine.engine import Array, EngineError
from stoker_engine.tensorrt_library import (
    Binding,
    Library,
    import_library,
    installed_version,
    logger_of,
    meaning,
    profiler_of,
)

DTYPES: Final = {
    "FLOAT": DType.FP32,
    "HALF": DType.FP16,
    "INT8": DType.INT8,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "BOOL": DType.BOOL,
    "UINT8": DType.UINT8,
}
"""By the name in TensorRT; 8.6 has no INT64."""

_PROFILE: Final = 0
_MIN: Final = 0  # of (min, opt, max)
_MAX: Final = 2


def open_engine(path: str, session: SessionOptions) -> "TensorRtEngine":
    """Load a plan. See :class:`stoker_engine.backends.Opener`.

    Raises:
        EngineError: ``PLAN_MISMATCH``, ``NO_GPU``, ``UNSAFE_MODEL``, ``MEMORY``, ``LOAD_ERROR``.
    """
    runtime = session.runtime or Runtime.TENSORRT
    _check_header(path, runtime, version=installed_version(runtime))
    cuda = open_cuda()
    library = import_library(runtime)
    _check_header(path, runtime, version=library.__version__, gpu_sm=cuda.gpu.sm)
    return TensorRtEngine(path, session, library, cuda)


class TensorRtEngine:
    """A plan on the GPU, and a lane for each run that may go on at a time."""

    def __init__(self, path: str, session: SessionOptions, library: Library, cuda: Cuda) -> None:
        logger, self._messages = logger_of(library)
        self._library = library
        self._cuda = cuda
        self._runtime = library.Runtime(logger)
        self._runtime.engine_host_code_allowed = False  # a plan is data here, never a program
        self._engine = self._deserialised(path)
        self.io = self._io()  # with the bounds of the plan's profile
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(session.parallel_runs):
            self._lanes.put(self._lane(use_graph=session.cuda_graph))

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """See :class:`stoker_engine.engine.Engine`."""
        lane = self._lanes.get()
        try:
            return lane.run(inputs, wanted)
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Give back contexts, buffers and the engine, in this order."""
        while not self._lanes.empty():
            self._lanes.get()
        self._cuda.close()
        del self._engine
        del self._runtime

    def layers(self) -> str:
        """What the compiler made of the model, as JSON of the library's own."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))

    def tell_layers(self, heard: Callable[[str, float], None]) -> None:
        """From now on, say what each layer of a run took, in milliseconds.

        For builders: such runs are slower. A recorded run tells nothing.
        """
        profiler = profiler_of(self._library, heard)
        for _ in range(self._lanes.qsize()):
            lane = self._lanes.get()
            lane.profile(profiler)
            self._lanes.put(lane)

    def _deserialised(self, path: str) -> Binding:
        with Path(path).open("rb") as file:
            plan = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._messages.take()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._failure(ReasonCode.LOAD_ERROR, "TensorRT refuses the plan")
        return engine

    def _lane(self, *, use_graph: bool) -> "_Lane":
        context = self._engine.create_execution_context()
        if context is None:
            raise self._failure(ReasonCode.MEMORY, "TensorRT can not make a context")
        lane = _Lane(context, self._cuda, self.io, self._failure)
        lane.bind(self._largest_shapes(), self._on_host())
        if use_graph:
            lane.use_graph()
        return lane

    def _largest_shapes(self) -> dict[str, tuple[int, ...]]:
        """The largest shape of each input, as the profile has it."""
        return {spec.name: spec.largest or spec.shape for spec in self.io.inputs}

    def _on_host(self) -> frozenset[str]:
        """Inputs that hold shapes stay with the processor."""
        host = self._library.TensorLocation.HOST
        names = [spec.name for spec in (*self.io.inputs, *self.io.outputs)]
        return frozenset(n for n in names if self._engine.get_tensor_location(n) == host)

    def _io(self) -> EngineIO:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = self._library.TensorIOMode.INPUT
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == is_input]
        outputs = [n for n in names if n not in inputs]
        try:
            return EngineIO.parse_object(
                {
                    "inputs": [self._tensor(name).to_object() for name in inputs],
                    "outputs": [self._tensor(name).to_object() for name in outputs],
                }
            )
        except ContractError as error:
            raise EngineError(ReasonCode.LOAD_ERROR, error.detail) from None

    def _tensor(self, name: str) -> TensorSpec:
        kind = self._engine.get_tensor_dtype(name)
        dtype = DTYPES.get(kind.name)
        if dtype is None:
            detail = f"tensor {name} is of type {kind.name}, which can not be served"
            raise EngineError(ReasonCode.LOAD_ERROR, detail)
        shape = tuple(int(dim) for dim in self._engine.get_tensor_shape(name))
        is_input = self._engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT
        spec = TensorSpec.model_construct(name=name, dtype=dtype, shape=shape)
        if not is_input or _is_fixed(shape):
            return spec
        profile = self._engine.get_tensor_profile_shape(name, _PROFILE)
        bounds = {"smallest": tuple(profile[_MIN]), "largest": tuple(profile[_MAX])}
        return spec.model_copy(update=bounds)

    def _failure(self, otherwise: ReasonCode, what: str) -> EngineError:
        """The error for something that the library did not do: it explains itself in messages."""
        said = self._messages.take()
        return EngineError(meaning(said, otherwise), ": ".join([what, *said[-3:]]))


class _Lane:
    """One context, its stream, and buffers that are bound once, at the largest shapes."""

    def __init__(
        self,
        context: Binding,
        cuda: Cuda,
        io: EngineIO,
        failure: Callable[[ReasonCode, str], EngineError],
    ) -> None:
        self._context = context
        self._cuda = cuda
        self._failure = failure
        self._inputs = {spec.name: spec for spec in io.inputs}
        self._outputs = {spec.name: spec for spec in io.outputs}
        self._stream = cuda.stream()
        self._buffers: dict[str, Buffer] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._enqueue: Callable[[], None] = self._execute
        self._profiler: Binding = None

    def bind(self, largest: Mapping[str, tuple[int, ...]], on_host: frozenset[str]) -> None:
        """Allocate for the largest shapes, and say once where everything is.

        Raises:
            EngineError: ``MEMORY``, or ``LOAD_ERROR`` for outputs of a size nobody knows.
        """
        for name, shape in largest.items():
            self._set_shape(name, shape)
        for name, spec in (*self._inputs.items(), *self._outputs.items()):
            shape = largest.get(name) or self._shape_of(name)
            size = max(tensor_bytes(spec.dtype, shape), 1)
            buffer = self._buffers[name] = self._cuda.buffer(size)
            address = buffer.host.ctypes.data if name in on_host else buffer.device
            self._context.set_tensor_address(name, address)

    def use_graph(self) -> None:
        """Record a run; later ones only replay it.

        Raises:
            EngineError: ``LOAD_ERROR``, shapes that may change can not be recorded.
        """
        if not all(_is_fixed(spec.shape) for spec in self._inputs.values()):
            detail = "a CUDA graph needs fixed shapes: build the plan without a profile"
            raise EngineError(ReasonCode.LOAD_ERROR, detail)
        self._execute()  # what is set up at the first run must not be recorded
        self._cuda.wait(self._stream)
        self._enqueue = self._cuda.record(self._stream, self._execute)

    def profile(self, profiler: Binding) -> None:
        """Have the library say how long the layers of each run took."""
        self._profiler = profiler  # kept: the context only points to it
        self._context.profiler = profiler

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """Copy in, run, copy out."""
        for name in self._inputs:
            self._take(name, inputs.get(name))
        self._enqueue()
        shapes = {name: self._shape_of(name) for name in wanted}
        for name, shape in shapes.items():
            size = tensor_bytes(self._outputs[name].dtype, shape)
            self._cuda.to_host(self._buffers[name], size, self._stream)
        self._cuda.wait(self._stream)
        # copied: the next run of this lane writes into the same memory
        return [np.array(self._view(self._outputs[n], shape)) for n, shape in shapes.items()]

    def _take(self, name: str, array: Array | None) -> None:
        spec = self._inputs[name]
        if array is None or array.dtype != NUMPY_NAME[spec.dtype]:
            detail = f"input {name} has to be {spec.dtype}"
            raise EngineError(ReasonCode.BAD_REQUEST, detail)
        if array.shape != self._shapes[name]:
            self._set_shape(name, array.shape)
        self._view(spec, array.shape)[...] = array
        self._cuda.to_device(self._buffers[name], array.nbytes, self._stream)

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        spec = self._inputs[name]
        fits = _is_fixed(spec.shape) and shape == spec.shape
        if not fits and (_is_fixed(spec.shape) or not self._context.set_input_shape(name, shape)):
            detail = f"input {name} is {spec.words}, {list(shape)} does not fit"
            raise self._failure(ReasonCode.BAD_REQUEST, detail)
        self._shapes[name] = shape

    def _shape_of(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(dim) for dim in self._context.get_tensor_shape(name))
        if not _is_fixed(shape):
            detail = f"the size of output {name} depends on data, which can not be served"
            raise EngineError(ReasonCode.LOAD_ERROR, detail)
        return shape

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise self._failure(ReasonCode.RUN_ERROR, "TensorRT did not run the engine")

    def _view(self, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        size = tensor_bytes(spec.dtype, shape)
        return self._buffers[spec.name].host[:size].view(NUMPY_NAME[spec.dtype]).reshape(shape)


def _is_fixed(shape: Sequence[int]) -> bool:
    return all(dim >= 0 for dim in shape)


def _check_header(
    path: str, runtime: Runtime, *, version: str | None, gpu_sm: str | None = None
) -> None:
    with Path(path).open("rb") as file:
        head, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
    try:
        header = read_plan_header(head, size)
    except ContractError as error:
        raise EngineError(error.code, error.detail) from None
    unfit = why_plan_unfit(header, runtime, version=version, gpu_sm=gpu_sm)
    if unfit is not None:
        raise EngineError(ReasonCode.PLAN_MISMATCH, unfit)
