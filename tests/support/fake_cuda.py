"""A GPU for tests: device memory is host memory, and queued work is done when it is waited for."""

import ctypes
from collections.abc import Callable

import numpy as np

from stoker_contract.codes import ReasonCode
from stoker_engine.cuda import Buffer, Gpu
from stoker_engine.engine import EngineError, EngineLostError


class FakeCuda:
    """Implements :class:`stoker_engine.cuda.Cuda`.

    Work that nobody waited for has not happened, so that code which forgets to wait fails.
    """

    def __init__(self, *, integrated: bool = False, room_bytes: int = 2**30) -> None:
        self.gpu = Gpu("a fake", "87", integrated=integrated)
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.room_bytes = room_bytes
        self.buffers: list[Buffer] = []
        self.copies = 0
        self.replays = 0
        self.broken = False
        self.closed = False
        self._devices: list[object] = []

    def buffer(self, size: int) -> Buffer:
        """See the Protocol."""
        if size > self.room_bytes:
            raise EngineError(ReasonCode.MEMORY, "the fake GPU is full")
        self.room_bytes -= size
        host = np.zeros(size, np.uint8)
        device = host if self.gpu.integrated else np.zeros(size, np.uint8)
        self._devices.append(device)
        self.buffers.append(Buffer(host, device.ctypes.data, self.gpu.integrated))
        return self.buffers[-1]

    def stream(self) -> int:
        """See the Protocol."""
        handle = 1000 + len(self.queues)
        self.queues[handle] = []
        return handle

    def to_device(self, buffer: Buffer, size: int, stream: int) -> None:
        """See the Protocol."""
        self._copy(buffer, buffer.device, buffer.host.ctypes.data, size, stream)

    def to_host(self, buffer: Buffer, size: int, stream: int) -> None:
        """See the Protocol."""
        self._copy(buffer, buffer.host.ctypes.data, buffer.device, size, stream)

    def _copy(self, buffer: Buffer, to: int, source: int, size: int, stream: int) -> None:
        if not buffer.shared:
            self.copies += 1
            self.queues[stream].append(
                lambda: memory(to, size).__setitem__(..., memory(source, size))
            )

    def wait(self, stream: int) -> None:
        """See the Protocol."""
        if self.broken:
            detail = "an illegal memory access was encountered (CUDA error 700)"
            raise EngineLostError(detail)
        queue, self.queues[stream] = self.queues[stream], []
        for work in queue:
            work()

    def record(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """See the Protocol."""
        before, self.queues[stream] = self.queues[stream], []
        work()
        recorded, self.queues[stream] = self.queues[stream], before

        def replay() -> None:
            self.replays += 1
            self.queues[stream].extend(recorded)

        return replay

    def close(self) -> None:
        """See the Protocol."""
        self.closed = True


def memory(address: int, size: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """The bytes at an address."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
