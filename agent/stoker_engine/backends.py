"""Which module runs what, imported only when something is to be run."""

import importlib
from collections.abc import Mapping
from typing import Final, Protocol, cast

from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import RUNTIMES_OF_KIND, ArtifactKind, Runtime, runtime_of
from stoker_engine.engine import Engine, EngineError
from stoker_engine.huge_pages import gather_into_huge_pages
from stoker_engine.isolation import give_back_memory

# runtime -> the module that puts it behind ``Engine``, and the extra that installs it
_BACKENDS: Final[Mapping[Runtime, tuple[str, str]]] = {
    Runtime.ONNXRUNTIME: ("onnxruntime_backend", "onnx"),
    Runtime.OPENVINO: ("openvino_backend", "openvino"),
    Runtime.TENSORRT: ("tensorrt_backend", "tensorrt"),
    Runtime.TENSORRT_RTX: ("tensorrt_backend", "tensorrt-rtx"),
}


class Opener(Protocol):
    """``open_engine`` of a backend module."""

    def __call__(self, path: str, session: SessionOptions) -> Engine:
        """Load the file at ``path``, which may be a ``/proc/self/fd`` link.

        Raises:
            EngineError: ``LOAD_ERROR`` or ``MEMORY``; of a plan also ``PLAN_MISMATCH``,
                ``NO_GPU`` and ``UNSAFE_MODEL``.
        """


def open_engine(path: str, kind: ArtifactKind, session: SessionOptions) -> Engine:
    """Load a file with the runtime that its session names.

    Raises:
        EngineError: ``LOAD_ERROR`` (also when that runtime is not installed) or ``MEMORY``.
    """
    engine = _opener(kind, session)(path, session)
    give_back_memory()  # before: it tears huge pages
    gather_into_huge_pages()
    return engine


def _opener(kind: ArtifactKind, session: SessionOptions) -> Opener:
    runtime = runtime_of(kind, session.runtime)
    if runtime not in _BACKENDS or runtime not in RUNTIMES_OF_KIND[kind]:
        detail = f"this build does not run {kind} with {runtime}"
        raise EngineError(ReasonCode.LOAD_ERROR, detail)
    module, extra = _BACKENDS[runtime]
    try:
        backend = importlib.import_module(f"stoker_engine.{module}")
    except ImportError as error:
        detail = f"{runtime} can not be imported here: {error}; install stoker[{extra}]"
        raise EngineError(ReasonCode.LOAD_ERROR, detail) from None
    return cast("Opener", backend.open_engine)
