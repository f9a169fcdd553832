"""Putting weights that lie beside an ONNX file into it, and refusing those that lie elsewhere.

A tensor names its file, and a model comes from anywhere: only regular files within the
model's own folder are read, wherever links lead, only as many bytes as the tensor has, and
no more in all than one ONNX file can hold.
"""

import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn, Protocol

import onnx

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.bounded import MAX_ONNX_BYTES

_HINT: Final = "put the file beside the model, or save it as one: onnx.save(onnx.load(path), out)"


class Hash(Protocol):
    """What is told of every byte that is read."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""


def inline(tensors: Iterable[onnx.TensorProto], model: Path, seen: Hash) -> None:
    """Read the tensors that keep their data outside, in place.

    Raises:
        BuildError: ``EXTERNAL_DATA``, when a tensor names a file that is not its own;
            ``MODEL_TOO_LARGE``.
    """
    total = 0
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        size = _size_of(tensor)
        total += size
        if total > MAX_ONNX_BYTES:
            detail = f"{model.name} has more than {MAX_ONNX_BYTES} bytes of weights"
            hint = "an ONNX file can not hold more: store the weights in FP16, or divide the model"
            raise BuildError(BuildCode.MODEL_TOO_LARGE, detail, hint)
        data = _read(tensor, model, size)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
        seen.update(data)


def _size_of(tensor: onnx.TensorProto) -> int:
    """How many bytes its type and its shape ask for."""
    if any(dim < 0 for dim in tensor.dims):
        _refuse(tensor, "it has a negative dimension")
    try:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError, ValueError):
        _refuse(tensor, "nobody knows its type")
    if item.hasobject:
        _refuse(tensor, "text can not lie outside")
    bits = _PACKED_BITS.get(tensor.data_type, item.itemsize * 8)
    return (math.prod(int(dim) for dim in tensor.dims) * int(bits) + 7) // 8


_PACKED_BITS: Final = {
    kind: bits
    for name, bits in (("UINT4", 4), ("INT4", 4), ("FLOAT4E2M1", 4), ("UINT2", 2), ("INT2", 2))
    if (kind := getattr(onnx.TensorProto, name, None)) is not None
}


def _read(tensor: onnx.TensorProto, model: Path, size: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    offset = _number(tensor, entries.get("offset", "0"))
    if _number(tensor, entries.get("length", str(size))) != size:
        _refuse(tensor, f"it says that it has {entries['length']} bytes, its shape {size}")
    path = _beside(tensor, model, entries.get("location", ""))
    try:
        # the path has no more links in it: one that appears now is not followed
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                _refuse(tensor, f"{path.name} is not a regular file")
            if offset + size > found.st_size:
                _refuse(tensor, f"it ends after the end of {path.name}")
            stream.seek(offset)
            return stream.read(size)
    except OSError as error:
        _refuse(tensor, f"{path.name} can not be read ({error.strerror})")


def _beside(tensor: onnx.TensorProto, model: Path, location: str) -> Path:
    named = PurePosixPath(location)
    if not location or "\0" in location or "\\" in location:
        _refuse(tensor, "it names no file")
    if named.is_absolute() or ".." in named.parts:
        _refuse(tensor, f"{location[:100]!r} is outside the model's folder")
    folder = model.resolve().parent
    try:
        path = (folder / named).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        _refuse(tensor, f"there is no file {location[:100]!r} beside the model")
    if not path.is_relative_to(folder):
        _refuse(tensor, f"{location[:100]!r} is a link out of the model's folder")
    return path


def _number(tensor: onnx.TensorProto, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:  # noqa: PLR2004  of 64 bits
        _refuse(tensor, f"{text[:30]!r} is not a number of bytes")
    return int(text)


def _refuse(tensor: onnx.TensorProto, why: str) -> NoReturn:
    detail = f"tensor {tensor.name[:100]!r} keeps its data outside, and {why}"
    raise BuildError(BuildCode.EXTERNAL_DATA, detail, _HINT)
