"""ONNX Runtime: on the processor, or on what a manifest allows and the device has."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnxruntime as ort

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.manifest import DType, EngineIO, SessionOptions, TensorSpec
from stoker_engine.cores import threads_here
from stoker_engine.engine import Array, EngineError, as_array
from stoker_engine.providers import attempts

DTYPE_OF_ORT: Final = {
    "tensor(bool)": DType.BOOL,
    "tensor(uint8)": DType.UINT8,
    "tensor(uint16)": DType.UINT16,
    "tensor(uint32)": DType.UINT32,
    "tensor(uint64)": DType.UINT64,
    "tensor(int8)": DType.INT8,
    "tensor(int16)": DType.INT16,
    "tensor(int32)": DType.INT32,
    "tensor(int64)": DType.INT64,
    "tensor(float16)": DType.FP16,
    "tensor(float)": DType.FP32,
    "tensor(double)": DType.FP64,
}
_OPTIMISATION: Final = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_FATAL: Final = 4
_OUT_OF_MEMORY: Final = ("bad alloc", "bad_alloc", "failed to allocate", "out of memory")


class OnnxRuntimeEngine:
    """One inference session. The session itself may be run by several threads."""

    def __init__(self, path: str, options: SessionOptions) -> None:
        self._session = _session(path, options)
        # Copied to plain values at once: a NodeArg that is kept pins the whole session.
        self.io = _io(self._session)

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """See :class:`stoker_engine.engine.Engine`."""
        try:
            outputs = self._session.run(wanted, inputs)
        except Exception as error:  # noqa: BLE001 - as above
            raise _translated(error, ReasonCode.RUN_ERROR) from None
        return [as_array(output) for output in outputs]

    @property
    def providers(self) -> tuple[str, ...]:
        """What runs it, in the order in which nodes are offered."""
        return tuple(self._session.get_providers())

    def close(self) -> None:
        """Drop the session."""
        del self._session


def open_engine(path: str, session: SessionOptions) -> OnnxRuntimeEngine:
    """Load an ONNX file. See :class:`stoker_engine.backends.Opener`."""
    return OnnxRuntimeEngine(path, session)


def _session(path: str, options: SessionOptions) -> Any:  # noqa: ANN401 - the runtime has no types
    """The first session that can be made; an accelerator that fails leaves it to the next."""
    failed: list[Exception] = []
    for providers in attempts(options, ort.get_available_providers()):
        try:
            return ort.InferenceSession(
                path,
                sess_options=settings_of(options),
                providers=providers,
                enable_fallback=0,  # it would print, and forget the order
            )
        except Exception as error:  # noqa: BLE001, PERF203 - the binding's errors have no common base
            failed.append(error)
    raise _translated(failed[-1], ReasonCode.LOAD_ERROR) from None


def settings_of(options: SessionOptions) -> Any:  # noqa: ANN401 - the runtime has no types
    """The runtime's settings for a session."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads_here(options.intra_op_threads)
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = _OPTIMISATION[options.graph_optimisation]
    settings.log_severity_level = _FATAL
    spinning = "1" if options.allow_spinning else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    if options.x64_quant_precision:
        settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


def _io(session: Any) -> EngineIO:  # noqa: ANN401 - the runtime has no types
    inputs = tuple(_tensor(arg.name, arg.type, arg.shape) for arg in session.get_inputs())
    outputs = tuple(_tensor(arg.name, arg.type, arg.shape) for arg in session.get_outputs())
    try:
        return EngineIO.parse_object(
            {
                "inputs": [spec.to_object() for spec in inputs],
                "outputs": [spec.to_object() for spec in outputs],
            }
        )
    except ContractError as error:
        raise EngineError(ReasonCode.LOAD_ERROR, error.detail) from None


def _tensor(name: str, kind: str, shape: Sequence[object]) -> TensorSpec:
    dtype = DTYPE_OF_ORT.get(kind)
    if dtype is None:
        detail = f"tensor {name} is of type {kind}, which can not be served"
        raise EngineError(ReasonCode.LOAD_ERROR, detail)
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in shape)
    return TensorSpec.model_construct(name=name, dtype=dtype, shape=dims)


def _translated(error: Exception, code: ReasonCode) -> EngineError:
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        code = ReasonCode.MEMORY
    elif code is ReasonCode.RUN_ERROR and type(error).__name__ == "InvalidArgument":
        code = ReasonCode.BAD_REQUEST
    return EngineError(code, text)
