"""OpenVINO on the processor. It reads the same ONNX files as ONNX Runtime does."""

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import openvino as ov

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.manifest import DType, EngineIO, SessionOptions, TensorSpec
from stoker_engine.cores import threads_here
from stoker_engine.engine import Array, EngineError

_DTYPES: Final = {
    "boolean": DType.BOOL,
    "u8": DType.UINT8,
    "u16": DType.UINT16,
    "u32": DType.UINT32,
    "u64": DType.UINT64,
    "i8": DType.INT8,
    "i16": DType.INT16,
    "i32": DType.INT32,
    "i64": DType.INT64,
    "f16": DType.FP16,
    "f32": DType.FP32,
    "f64": DType.FP64,
}
_FLOAT_PRECISION: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_OUT_OF_MEMORY: Final = ("bad alloc", "bad_alloc", "failed to allocate", "out of memory")
_WRONG_INPUT: Final = ("input tensor", "port.get_shape", "element type", "is_dynamic")


class _FirstRun:
    """The first run of a process, which is alone.

    The binding makes tables of types when they are first needed: one thread waits for the table
    with the interpreter's lock in its hand, while the other waits for that lock to fill it.
    """

    def __init__(self) -> None:
        self.alone = threading.Lock()
        self.ended = False


_FIRST: Final = _FirstRun()


class OpenVinoEngine:
    """One compiled model. Each thread that runs it has an infer request of its own."""

    def __init__(self, path: str, options: SessionOptions) -> None:
        try:
            model = core().read_model(path)
            self.io = _io(model)
            self._compiled = core().compile_model(model, "CPU", settings_of(options))
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - the binding's errors have no common base class
            raise _translated(error, ReasonCode.LOAD_ERROR) from None
        self._places = {spec.name: index for index, spec in enumerate(self.io.outputs)}
        self._local = threading.local()

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """See :class:`stoker_engine.engine.Engine`."""
        try:
            if _FIRST.ended:
                return self._run(inputs, wanted)
            with _FIRST.alone:
                outputs = self._run(inputs, wanted)
                _FIRST.ended = True
                return outputs
        except Exception as error:  # noqa: BLE001 - as above
            raise _translated(error, ReasonCode.RUN_ERROR) from None

    def _run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        request = self._request()
        request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        # copied: the next run of this thread writes into the same memory
        return [np.array(request.get_output_tensor(self._places[name]).data) for name in wanted]

    def close(self) -> None:
        """Drop the compiled model."""
        del self._local
        del self._compiled

    def _request(self) -> Any:  # noqa: ANN401 - the runtime's own class
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request

    def runtime_model(self) -> Any:  # noqa: ANN401 - the runtime's own class
        """The graph as the plugin runs it, for the builder's audit."""
        return self._compiled.get_runtime_model()


@cache
def core() -> Any:  # noqa: ANN401 - the runtime's own class
    """The runtime of this process."""
    return ov.Core()


def open_engine(path: str, session: SessionOptions) -> OpenVinoEngine:
    """Load an ONNX file. See :class:`stoker_engine.backends.Opener`."""
    return OpenVinoEngine(path, session)


def settings_of(options: SessionOptions) -> dict[str, Any]:
    """The plugin's settings for a session."""
    runs = options.parallel_runs
    return {
        "INFERENCE_NUM_THREADS": threads_here(options.intra_op_threads * runs),
        "NUM_STREAMS": runs,
        # without this a processor with BF16 does not answer as FP32 was certified
        "INFERENCE_PRECISION_HINT": _FLOAT_PRECISION[options.float_precision],
        # an engine and its candidate would be pinned to the same core
        "ENABLE_CPU_PINNING": False,
    }


def _io(model: Any) -> EngineIO:  # noqa: ANN401 - the runtime has no types
    try:
        return EngineIO.parse_object(
            {
                "inputs": [_tensor(port).to_object() for port in model.inputs],
                "outputs": [_tensor(port).to_object() for port in model.outputs],
            }
        )
    except ContractError as error:
        raise EngineError(ReasonCode.LOAD_ERROR, error.detail) from None


def _tensor(port: Any) -> TensorSpec:  # noqa: ANN401 - the runtime has no types
    name, kind = port.get_any_name(), port.get_element_type().get_type_name()
    dtype = _DTYPES.get(kind)
    if dtype is None:
        detail = f"tensor {name} is of type {kind}, which can not be served"
        raise EngineError(ReasonCode.LOAD_ERROR, detail)
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        detail = f"tensor {name} has no rank; fix its shape when the model is exported"
        raise EngineError(ReasonCode.LOAD_ERROR, detail)
    dims = tuple(dim.get_length() if dim.is_static else -1 for dim in shape)
    return TensorSpec.model_construct(name=name, dtype=dtype, shape=dims)


def _translated(error: Exception, code: ReasonCode) -> EngineError:
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        code = ReasonCode.MEMORY
    elif code is ReasonCode.RUN_ERROR and any(sign in text for sign in _WRONG_INPUT):
        code = ReasonCode.BAD_REQUEST
    return EngineError(code, text)
