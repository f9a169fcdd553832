"""CUDA through NVIDIA's own binding of the runtime (``cuda-bindings``).

The runtime uses the primary context of the device in every thread, the one that TensorRT uses.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from stoker_contract.codes import ReasonCode
from stoker_engine.cuda import Buffer, Gpu, bytes_at
from stoker_engine.engine import EngineError, EngineLostError

# The second is where wheels for CUDA 11 and early 12 have it.
_MODULES: Final = ("cuda.bindings.runtime", "cuda.cudart")
_DEVICE: Final = 0


def open_gpu() -> "RuntimeCuda":
    """The first GPU.

    Raises:
        ImportError: there is no such binding.
        EngineError: ``NO_GPU``.
    """
    runtime = _import()
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineError(ReasonCode.NO_GPU, _words(runtime, error))
    return RuntimeCuda(runtime)


class RuntimeCuda:
    """See :class:`stoker_engine.cuda.Cuda`."""

    def __init__(self, runtime: Any) -> None:  # noqa: ANN401 - a module
        self._runtime = runtime
        self._releases: list[Callable[[], object]] = []
        self._call(runtime.cudaSetDevice(_DEVICE))
        self.gpu = self._describe()

    def buffer(self, size: int) -> Buffer:
        """See :class:`stoker_engine.cuda.Cuda`."""
        runtime = self._runtime
        shared = self.gpu.integrated
        flags = runtime.cudaHostAllocMapped if shared else runtime.cudaHostAllocDefault
        host = self._call(runtime.cudaHostAlloc(size, flags))
        self._releases.append(partial(runtime.cudaFreeHost, host))
        if shared:
            device = self._call(runtime.cudaHostGetDevicePointer(host, 0))
        else:
            device = self._call(runtime.cudaMalloc(size))
            self._releases.append(partial(runtime.cudaFree, device))
        return Buffer(bytes_at(int(host), size), int(device), shared)

    def stream(self) -> int:
        """See :class:`stoker_engine.cuda.Cuda`."""
        runtime = self._runtime
        stream = self._call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self._releases.append(partial(runtime.cudaStreamDestroy, stream))
        return int(stream)

    def to_device(self, buffer: Buffer, size: int, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        if not buffer.shared:
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
            self._copy(buffer.device, buffer.host.ctypes.data, size, kind, stream)

    def to_host(self, buffer: Buffer, size: int, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        if not buffer.shared:
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            self._copy(buffer.host.ctypes.data, buffer.device, size, kind, stream)

    def wait(self, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        (error,) = self._runtime.cudaStreamSynchronize(stream)
        if error != self._runtime.cudaError_t.cudaSuccess:
            # a fault of a kernel stays in the context: every later call would fail as well
            raise EngineLostError(_words(self._runtime, error))

    def record(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`stoker_engine.cuda.Cuda`."""
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(runtime.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        finally:
            graph = self._call(runtime.cudaStreamEndCapture(stream))
        ready = self._call(runtime.cudaGraphInstantiate(graph, 0))
        self._releases += [
            partial(runtime.cudaGraphDestroy, graph),
            partial(runtime.cudaGraphExecDestroy, ready),
        ]
        return lambda: self._call(runtime.cudaGraphLaunch(ready, stream))

    def close(self) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        while self._releases:
            self._releases.pop()()

    def _copy(self, to: int, source: int, size: int, kind: Any, stream: int) -> None:  # noqa: ANN401
        self._call(self._runtime.cudaMemcpyAsync(to, source, size, kind, stream))

    def _describe(self) -> Gpu:
        runtime = self._runtime
        names = runtime.cudaDeviceAttr

        def attribute(name: str) -> int:
            wanted = getattr(names, f"cudaDevAttr{name}")
            return int(self._call(runtime.cudaDeviceGetAttribute(wanted, _DEVICE)))

        free, total = self._call(runtime.cudaMemGetInfo())
        name = self._call(runtime.cudaGetDeviceProperties(_DEVICE)).name
        return Gpu(
            name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
            sm=f"{attribute('ComputeCapabilityMajor')}{attribute('ComputeCapabilityMinor')}",
            integrated=bool(attribute("Integrated")),
            total_bytes=int(total),
            free_bytes=int(free),
        )

    def _call(self, result: tuple[Any, ...]) -> Any:  # noqa: ANN401 - whatever was asked for
        """The value of a call, whose first part is always its error."""
        error, *values = result
        errors = self._runtime.cudaError_t
        if error == errors.cudaErrorMemoryAllocation:
            raise EngineError(ReasonCode.MEMORY, _words(self._runtime, error))
        if error != errors.cudaSuccess:
            raise EngineError(ReasonCode.RUN_ERROR, _words(self._runtime, error))
        return values[0] if len(values) == 1 else tuple(values)


def _import() -> Any:  # noqa: ANN401 - a module
    for name in _MODULES[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:  # noqa: PERF203 - the next name is the answer to it
            continue
    return importlib.import_module(_MODULES[-1])


def _words(runtime: Any, error: Any) -> str:  # noqa: ANN401 - as above
    _, text = runtime.cudaGetErrorString(error)
    words = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return f"{words} (CUDA error {int(error)})"
