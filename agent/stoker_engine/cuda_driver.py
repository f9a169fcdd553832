"""CUDA through PyCUDA, for systems that ``cuda-bindings`` has no wheels for.

It works in the *primary* context, which is TensorRT's too; ``pycuda.autoinit`` would make
another one. The context has to be current in each thread that calls, so each call makes it so.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from stoker_contract.codes import ReasonCode
from stoker_engine.cuda import Buffer, Gpu
from stoker_engine.engine import EngineError, EngineLostError

_DEVICE: Final = 0


def open_gpu() -> "DriverCuda":
    """The first GPU.

    Raises:
        ImportError: there is no PyCUDA, or no driver that it fits.
        EngineError: ``NO_GPU``.
    """
    driver = importlib.import_module("pycuda.driver")
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise EngineError(ReasonCode.NO_GPU, str(error)) from None
    if not count:
        raise EngineError(ReasonCode.NO_GPU, "PyCUDA finds no device")
    return DriverCuda(driver)


class DriverCuda:
    """See :class:`stoker_engine.cuda.Cuda`."""

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - a module
        self._driver = driver
        device = driver.Device(_DEVICE)
        self._context = device.retain_primary_context()
        self._streams: dict[int, Any] = {}
        self._memory: list[Any] = []
        major, minor = device.compute_capability()
        with self._current():
            free, total = driver.mem_get_info()
        self.gpu = Gpu(
            name=device.name(),
            sm=f"{major}{minor}",
            integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
            total_bytes=int(total),
            free_bytes=int(free),
        )

    def buffer(self, size: int) -> Buffer:
        """See :class:`stoker_engine.cuda.Cuda`."""
        driver = self._driver
        shared = self.gpu.integrated
        flags = driver.host_alloc_flags.DEVICEMAP if shared else 0
        with self._current():
            host = driver.pagelocked_empty(size, np.uint8, mem_flags=flags)
            device = host.base.get_device_pointer() if shared else driver.mem_alloc(size)
        self._memory += [host, device]
        return Buffer(host, int(device), shared)

    def stream(self) -> int:
        """See :class:`stoker_engine.cuda.Cuda`."""
        with self._current():
            stream = self._driver.Stream()
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def to_device(self, buffer: Buffer, size: int, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        if not buffer.shared:
            with self._current():
                copy = self._driver.memcpy_htod_async
                copy(buffer.device, buffer.host[:size], self._streams[stream])

    def to_host(self, buffer: Buffer, size: int, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        if not buffer.shared:
            with self._current():
                copy = self._driver.memcpy_dtoh_async
                copy(buffer.host[:size], buffer.device, self._streams[stream])

    def wait(self, stream: int) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        try:
            with self._current():
                self._streams[stream].synchronize()
        except EngineError as error:
            raise EngineLostError(error.detail) from None

    def record(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """Not with this binding: it has no graphs in the versions that boards have."""
        del stream, work
        detail = "CUDA graphs need the package cuda-bindings"
        raise EngineError(ReasonCode.RUN_ERROR, detail)

    def close(self) -> None:
        """See :class:`stoker_engine.cuda.Cuda`."""
        with self._current():
            self._streams.clear()
            self._memory.clear()

    @contextmanager
    def _current(self) -> Iterator[None]:
        driver = self._driver
        self._context.push()
        try:
            yield
        except driver.MemoryError as error:
            raise EngineError(ReasonCode.MEMORY, str(error)) from None
        except driver.Error as error:
            raise EngineError(ReasonCode.RUN_ERROR, str(error)) from None
        finally:
            driver.Context.pop()
