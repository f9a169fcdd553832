"""CUDA, as little of it as an engine needs, and the first of its Python bindings that is there."""

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from stoker_contract.codes import ReasonCode
from stoker_engine.engine import EngineError

# In the order they are tried. The first knows all of CUDA and belongs to no thread.
_BINDINGS: Final = ("cuda_runtime", "cuda_driver")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that engines run on: the first that CUDA offers.

    Attributes:
        sm: compute capability without its dot, ``"87"``.
        integrated: it shares its memory with the processor, as on a Jetson.
    """

    name: str
    sm: str
    integrated: bool
    total_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Buffer:
    """Page-locked memory, and where the GPU finds it.

    Attributes:
        host: the bytes, for the processor.
        device: the address, for the GPU.
        shared: both are one memory, so that nothing has to be copied.
    """

    host: npt.NDArray[np.uint8]
    device: int
    shared: bool


class Cuda(Protocol):
    """The first GPU. Every method may be called from any thread.

    Methods raise :class:`EngineError`: ``MEMORY`` when there is none left, else ``RUN_ERROR``; or
    :class:`EngineLostError` when the GPU is in a state that only a new process gets out of.
    """

    @property
    def gpu(self) -> Gpu:
        """What it is."""

    def buffer(self, size: int) -> Buffer:
        """Memory that lives until :meth:`close`."""

    def stream(self) -> int:
        """A queue of work of its own, as the handle that TensorRT takes."""

    def to_device(self, buffer: Buffer, size: int, stream: int) -> None:
        """Queue the copy of the first ``size`` bytes; nothing to do for shared memory."""

    def to_host(self, buffer: Buffer, size: int, stream: int) -> None:
        """The way back."""

    def wait(self, stream: int) -> None:
        """Return when all that was queued is done."""

    def record(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` queues, as a CUDA graph; what is returned queues it again."""

    def close(self) -> None:
        """Give everything back."""


def open_cuda() -> Cuda:
    """The first GPU, through the first binding that works.

    Raises:
        EngineError: ``NO_GPU``, with the words of each binding.
    """
    reasons = []
    for name in _BINDINGS:
        try:
            module: Any = importlib.import_module(f"stoker_engine.{name}")
            found: Cuda = module.open_gpu()
        except ImportError as error:  # noqa: PERF203 - the next one is the answer to it
            reasons.append(f"{error}")
        except EngineError as error:
            reasons.append(error.detail)
        else:
            return found
    detail = f"CUDA finds no GPU: {'; '.join(reasons)}; install the driver and stoker[cuda]"
    raise EngineError(ReasonCode.NO_GPU, detail)


def bytes_at(address: int, size: int) -> npt.NDArray[np.uint8]:
    """Memory that CUDA allocated, as an array."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
