"""The worker's side of the shared memory: inputs read in place, outputs copied in."""

import mmap
from collections.abc import Mapping, Sequence

import numpy as np

from stoker_contract.codes import ReasonCode
from stoker_contract.hop import NUMPY_NAME, RingLayout, Run, Shape, offsets, tensor_bytes
from stoker_contract.manifest import EngineIO
from stoker_engine.engine import Array, EngineError


class Ring:
    """The memory that this worker shares with the server."""

    def __init__(self, fd: int, layout: RingLayout, io: EngineIO) -> None:
        self._layout = layout
        self._io = io
        self._memory = mmap.mmap(fd, layout.slots * layout.slot_bytes)

    def inputs(self, run: Run) -> Mapping[str, Array]:
        """The inputs of a run, as arrays over the shared memory.

        Raises:
            EngineError: ``BAD_REQUEST``, the frame does not fit the ring.
        """
        specs = self._io.inputs
        if run.slot >= self._layout.slots or len(run.shapes) != len(specs):
            detail = "the frame of a run does not fit this engine"
            raise EngineError(ReasonCode.BAD_REQUEST, detail)
        sizes = [tensor_bytes(s.dtype, shape) for s, shape in zip(specs, run.shapes, strict=True)]
        places = offsets(sizes)
        if places[-1] + sizes[-1] > self._layout.input_bytes:
            detail = f"inputs of {sum(sizes)} bytes do not fit the ring"
            raise EngineError(ReasonCode.BAD_REQUEST, detail)
        base = run.slot * self._layout.slot_bytes
        return {
            spec.name: self._view(base + place, NUMPY_NAME[spec.dtype], shape)
            for spec, shape, place in zip(specs, run.shapes, places, strict=True)
        }

    def write(self, slot: int, outputs: Sequence[Array]) -> tuple[Shape, ...]:
        """Copy outputs into the ring and return their shapes.

        Raises:
            EngineError: ``RUN_ERROR``, they are larger than the ring has room for.
        """
        places = offsets([array.nbytes for array in outputs], self._layout.input_bytes)
        if outputs and places[-1] + outputs[-1].nbytes > self._layout.slot_bytes:
            total = sum(array.nbytes for array in outputs)
            detail = f"outputs of {total} bytes do not fit the ring; fix the shapes in the manifest"
            raise EngineError(ReasonCode.RUN_ERROR, detail)
        base = slot * self._layout.slot_bytes
        for array, place in zip(outputs, places, strict=True):
            self._view(base + place, array.dtype.str, array.shape)[...] = array
        return tuple(array.shape for array in outputs)

    def _view(self, at: int, dtype: str, shape: Shape) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._memory, dtype=dtype, count=count, offset=at).reshape(shape)
