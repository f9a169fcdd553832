"""What a request says about its tensors, held against the engine's io before anything is copied."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker_contract.codes import ReasonCode
from stoker_contract.hop import ITEM_BYTES, NUMPY_NAME, Shape, max_tensor_bytes
from stoker_contract.manifest import EngineIO, TensorSpec
from stoker_server.errors import ServeError
from stoker_server.worker import Buffer, Call


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a request: raw little-endian bytes, or the values of a JSON list."""

    name: str
    datatype: str
    shape: Shape
    data: Buffer | list[Any]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as the data plane takes it, whatever carried it here."""

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()  # none named: all of them
    version: str = ""
    timeout_s: float | None = None
    id: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer: the wanted outputs, and whose they are."""

    digest: str
    release: str
    outputs: tuple[tuple[TensorSpec, Shape, bytes], ...]


def checked_call(io: EngineIO, request: InferRequest) -> Call:
    """The run that a request asks for.

    Raises:
        ServeError: ``BAD_REQUEST`` or ``TOO_LARGE``, saying what is wrong with which tensor.
    """
    given = {tensor.name: tensor for tensor in request.inputs}
    if len(given) != len(request.inputs):
        raise ServeError(ReasonCode.BAD_REQUEST, "an input is given twice")
    names = [spec.name for spec in io.inputs]
    if unknown := sorted(set(given) - set(names)):
        detail = f"unknown input {unknown[0]!r}; the model takes {', '.join(names)}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    buffers, shapes = [], []
    for spec in io.inputs:
        tensor = given.get(spec.name)
        if tensor is None:
            raise ServeError(ReasonCode.BAD_REQUEST, f"input {spec.name!r} is missing")
        _check_form(spec, tensor)
        buffers.append(_buffer(spec, tensor))
        shapes.append(tensor.shape)
    return Call(buffers, tuple(shapes), _wanted(io, request.outputs))


def selected(io: EngineIO, wanted: int) -> list[TensorSpec]:
    """The outputs of a bit mask."""
    return [spec for index, spec in enumerate(io.outputs) if wanted >> index & 1]


def _wanted(io: EngineIO, names: Sequence[str]) -> int:
    if not names:
        return (1 << len(io.outputs)) - 1
    known = {spec.name: index for index, spec in enumerate(io.outputs)}
    wanted = 0
    for name in names:
        if name not in known:
            detail = f"unknown output {name!r}; the model gives {', '.join(known)}"
            raise ServeError(ReasonCode.BAD_REQUEST, detail)
        wanted |= 1 << known[name]
    return wanted


def _check_form(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.dtype:
        detail = f"input {spec.name!r} is {spec.dtype}, not {tensor.datatype}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    if not spec.takes(tensor.shape):
        detail = f"input {spec.name!r} has shape {spec.words}, not {list(tensor.shape)}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    limit = max_tensor_bytes(spec)
    if ITEM_BYTES[spec.dtype] * prod(tensor.shape) > limit:
        detail = (
            f"input {spec.name!r} is larger than the {limit} bytes that the engine has room for"
        )
        raise ServeError(ReasonCode.TOO_LARGE, detail)


def _buffer(spec: TensorSpec, tensor: Tensor) -> Buffer:
    expected = ITEM_BYTES[spec.dtype] * prod(tensor.shape)
    if isinstance(tensor.data, list):
        return _from_values(spec, tensor.shape, tensor.data)
    if len(tensor.data) != expected:
        detail = f"input {spec.name!r} has {len(tensor.data)} bytes, its shape needs {expected}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    return tensor.data


def _from_values(spec: TensorSpec, shape: Shape, values: list[Any]) -> bytes:
    dtype = np.dtype(NUMPY_NAME[spec.dtype])
    try:
        array = np.array(values)
    except (ValueError, TypeError, OverflowError, RecursionError):
        detail = f"input {spec.name!r}: data is not a regular list of {spec.dtype} values"
        raise ServeError(ReasonCode.BAD_REQUEST, detail) from None
    if array.size != prod(shape):
        detail = f"input {spec.name!r} has {array.size} values, its shape needs {prod(shape)}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    if array.size and not _is_convertible(array, dtype):
        detail = f"input {spec.name!r}: data holds values that are not {spec.dtype}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    with np.errstate(over="ignore"):  # a large number becomes infinity, as in the client
        return array.astype(dtype).tobytes()


def _is_convertible(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return array.dtype.kind in "fiu"
    if dtype.kind == "b":
        return array.dtype.kind == "b"
    if array.dtype.kind not in "iu":
        return False
    bounds = np.iinfo(dtype)
    return int(array.min()) >= bounds.min and int(array.max()) <= bounds.max
