"""The hop between the server and one engine worker: documents, frames and the ring's layout.

The two sides share a SEQPACKET socket pair, which keeps frames whole, and a memory ring of fixed
slots. Only small headers cross the socket. Tensors lie in the ring in the order of the engine's
io, each at the next multiple of ``ALIGNMENT``, inputs in the first part of a slot and outputs in
the second, so a frame needs to carry shapes only.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from stoker_contract.codes import ReasonCode
from stoker_contract.document import Document
from stoker_contract.engine import EngineSpec
from stoker_contract.errors import ContractError
from stoker_contract.manifest import DType, EngineIO, TensorSpec
from stoker_contract.names import Count, Detail, PositiveInt, Sha256

ALIGNMENT: Final = 64
MAX_FRAME_BYTES: Final = 128 * 1024
MAX_RUN_BYTES: Final = 8 * 1024  # 64 tensors of rank 8, and room
# What a tensor may need at most when its shape leaves dimensions to the caller. The ring is
# sparse: memory nobody touched costs nothing.
DYNAMIC_TENSOR_BYTES: Final = 16 * 1024 * 1024

ITEM_BYTES: Final = {
    DType.BOOL: 1,
    DType.UINT8: 1,
    DType.UINT16: 2,
    DType.UINT32: 4,
    DType.UINT64: 8,
    DType.INT8: 1,
    DType.INT16: 2,
    DType.INT32: 4,
    DType.INT64: 8,
    DType.FP16: 2,
    DType.FP32: 4,
    DType.FP64: 8,
}

NUMPY_NAME: Final = {
    DType.BOOL: "bool",
    DType.UINT8: "uint8",
    DType.UINT16: "uint16",
    DType.UINT32: "uint32",
    DType.UINT64: "uint64",
    DType.INT8: "int8",
    DType.INT16: "int16",
    DType.INT32: "int32",
    DType.INT64: "int64",
    DType.FP16: "float16",
    DType.FP32: "float32",
    DType.FP64: "float64",
}

Shape = tuple[int, ...]

START: Final = b"S"  # server: a Start document
HANDSHAKE: Final = b"H"  # worker: a Handshake document
REFUSAL: Final = b"E"  # worker: a Refusal document; the worker ends
RUN: Final = b"R"  # server: one run
ANSWER: Final = b"A"  # worker: the outputs of a run are in the ring
FAILURE: Final = b"F"  # worker: a run failed, the worker goes on
BEAT: Final = b"B"  # worker: alive

_RUN = struct.Struct("<cQIQ")
_ANSWER = struct.Struct("<cQQQ")
_FAILURE = struct.Struct("<cQ")


class RingLayout(Document):
    """How the shared memory is cut. ``slot_bytes`` covers inputs, then outputs."""

    slots: PositiveInt
    slot_bytes: PositiveInt
    input_bytes: PositiveInt


class Start(Document):
    """The first frame a worker reads: what to load, and how to hold itself while it does."""

    spec: EngineSpec
    artifact_fd: Count
    ring_fd: Count
    ring: RingLayout
    memory_limit_bytes: PositiveInt | None = None
    niceness: Count = 0
    oom_score_adj: Count = 0
    heartbeat_s: float = 1.0


class Handshake(Document):
    """The worker's own words about what it loaded."""

    digest: Sha256
    pid: PositiveInt
    io: EngineIO
    load_s: float
    rss_bytes: Count


class Refusal(Document):
    """Why a worker could not load, or a run failed."""

    code: ReasonCode
    detail: Detail = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: which ring slot holds the inputs, and which outputs are wanted (a bit each)."""

    run_id: int
    slot: int
    wanted: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished run. Times are of the monotonic clock, which all processes here share."""

    run_id: int
    start_ns: int
    compute_ns: int
    shapes: tuple[Shape, ...]


def tensor_bytes(dtype: DType, shape: Sequence[int]) -> int:
    """How many bytes a tensor takes."""
    return ITEM_BYTES[dtype] * prod(shape)


def aligned(size: int) -> int:
    """``size`` rounded up, so that what follows starts at a multiple of ``ALIGNMENT``."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def offsets(sizes: Iterable[int], start: int = 0) -> list[int]:
    """Where tensors of these sizes lie, one after the other."""
    places = []
    for size in sizes:
        places.append(start)
        start += aligned(size)
    return places


def max_tensor_bytes(spec: TensorSpec) -> int:
    """The most bytes a tensor may take in the ring."""
    if spec.largest:
        return max(tensor_bytes(spec.dtype, spec.largest), 1)
    one = tensor_bytes(spec.dtype, [max(dim, 1) for dim in spec.shape])
    return one if all(dim >= 0 for dim in spec.shape) else max(one, DYNAMIC_TENSOR_BYTES)


def ring_layout(io: EngineIO, slots: int) -> RingLayout:
    """The ring for an engine: ``slots`` runs may be in it at a time."""
    input_bytes = sum(aligned(max_tensor_bytes(spec)) for spec in io.inputs)
    output_bytes = sum(aligned(max_tensor_bytes(spec)) for spec in io.outputs)
    input_bytes = max(input_bytes, ALIGNMENT)
    page = 4096
    slot_bytes = -(-(input_bytes + output_bytes) // page) * page
    return RingLayout(slots=slots, slot_bytes=slot_bytes, input_bytes=input_bytes)


def pack_run(run: Run) -> bytes:
    """A run as a frame."""
    return _RUN.pack(RUN, run.run_id, run.slot, run.wanted) + _pack_shapes(run.shapes)


def unpack_run(frame: bytes) -> Run:
    """A run from its frame.

    Raises:
        ContractError: ``MALFORMED``.
    """
    _, run_id, slot, wanted = _unpack(_RUN, frame)
    return Run(run_id, slot, wanted, _unpack_shapes(frame, _RUN.size))


def pack_answer(answer: Answer) -> bytes:
    """An answer as a frame."""
    head = _ANSWER.pack(ANSWER, answer.run_id, answer.start_ns, answer.compute_ns)
    return head + _pack_shapes(answer.shapes)


def unpack_answer(frame: bytes) -> Answer:
    """An answer from its frame.

    Raises:
        ContractError: ``MALFORMED``.
    """
    _, run_id, start_ns, compute_ns = _unpack(_ANSWER, frame)
    return Answer(run_id, start_ns, compute_ns, _unpack_shapes(frame, _ANSWER.size))


def pack_failure(run_id: int, refusal: Refusal) -> bytes:
    """A failed run as a frame."""
    return _FAILURE.pack(FAILURE, run_id) + refusal.encode()


def unpack_failure(frame: bytes) -> tuple[int, Refusal]:
    """A failed run from its frame.

    Raises:
        ContractError: the frame is not one.
    """
    _, run_id = _unpack(_FAILURE, frame)
    return run_id, Refusal.parse(frame[_FAILURE.size :])


def _pack_shapes(shapes: Sequence[Shape]) -> bytes:
    ranks = bytes(len(shape) for shape in shapes)
    dims = [dim for shape in shapes for dim in shape]
    # The module's functions keep compiled formats, unlike a Struct made each time.
    return bytes((len(shapes),)) + ranks + struct.pack(f"<{len(dims)}Q", *dims)


def _unpack_shapes(frame: bytes, start: int) -> tuple[Shape, ...]:
    if start >= len(frame):
        raise ContractError(ReasonCode.MALFORMED, "a frame ends before its shapes")
    first = start + 1 + frame[start]
    ranks = frame[start + 1 : first]
    try:
        dims = struct.unpack_from(f"<{sum(ranks)}Q", frame, first)
    except struct.error:
        raise ContractError(ReasonCode.MALFORMED, "the shapes of a frame are cut short") from None
    shapes, at = [], 0
    for rank in ranks:
        shapes.append(tuple(dims[at : at + rank]))
        at += rank
    return tuple(shapes)


def _unpack(layout: struct.Struct, frame: bytes) -> tuple[int, ...]:
    try:
        return layout.unpack_from(frame)
    except struct.error:
        raise ContractError(ReasonCode.MALFORMED, "a frame is cut short") from None
