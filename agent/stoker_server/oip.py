"""Open Inference Protocol v2: JSON and the binary tensor extension, to and from the data plane.

Everything that a client can get wrong raises ``BAD_REQUEST`` and says where.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from stoker_contract.codes import ReasonCode
from stoker_contract.hop import NUMPY_NAME, Shape
from stoker_contract.manifest import TensorSpec
from stoker_server.errors import ServeError
from stoker_server.tensors import InferRequest, InferResponse, Tensor

MAX_HEADER_BYTES: Final = 1024 * 1024
_MAX_TENSORS: Final = 64
_MAX_RANK: Final = 8
_MAX_NAME: Final = 128
_MAX_TIMEOUT_US: Final = 3_600_000_000
_NOT_SERVED: Final = ("shared_memory_region", "classification")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request, and in which form its outputs are wanted."""

    request: InferRequest
    binary: frozenset[str]  # outputs wanted as bytes
    all_binary: bool  # when none is named


def decode(
    model: str, version: str, body: bytes | bytearray | memoryview, header_bytes: int | None
) -> Decoded:
    """Read an inference request. Tensors stay views of ``body``.

    Raises:
        ServeError: ``BAD_REQUEST``.
    """
    view = memoryview(body)
    split = len(view) if header_bytes is None else header_bytes
    if not 0 <= split <= len(view):
        detail = f"a header of {split} bytes is announced, the body has {len(view)}"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    header = _object(_json(view[:split]), "the request")
    inputs = _inputs(header.get("inputs"), view[split:])
    parameters = _parameters(header, "the request")
    outputs = _list(header.get("outputs", []), "outputs")
    all_binary = _flag(parameters, "binary_data_output", default=False)
    names, binary = [], set()
    for entry in outputs:
        output = _object(entry, "an output")
        name = _name(output)
        wanted = _parameters(output, f"output {name!r}")
        names.append(name)
        if _flag(wanted, "binary_data", default=all_binary):
            binary.add(name)
    identity = header.get("id", "")
    if not isinstance(identity, str) or len(identity) > _MAX_NAME:
        raise ServeError(ReasonCode.BAD_REQUEST, "id must be a string of at most 128 characters")
    request = InferRequest(
        model=model,
        inputs=inputs,
        outputs=tuple(names),
        version=version,
        timeout_s=_timeout_s(parameters),
        id=identity,
    )
    return Decoded(request, frozenset(binary), all_binary)


def encode(decoded: Decoded, response: InferResponse) -> tuple[list[bytes], int | None]:
    """The parts of the answer's body, and the length of its JSON header if binary data follows."""
    entries: list[dict[str, Any]] = []
    tail: list[bytes] = []
    named = bool(decoded.request.outputs)
    for spec, shape, data in _in_order(decoded.request.outputs, response):
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.dtype, "shape": shape}
        if spec.name in decoded.binary if named else decoded.all_binary:
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            entry["data"] = _values(spec, data)
        entries.append(entry)
    model, _, version = response.release.rpartition("/")
    body: dict[str, Any] = {
        "model_name": decoded.request.model or model,
        "model_version": version,
        "outputs": entries,
    }
    if decoded.request.id:
        body["id"] = decoded.request.id
    header = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return [header, *tail], len(header) if tail else None


def _in_order(
    names: Sequence[str], response: InferResponse
) -> Sequence[tuple[TensorSpec, Shape, bytes]]:
    if not names:
        return response.outputs
    found = {output[0].name: output for output in response.outputs}
    return [found[name] for name in dict.fromkeys(names)]


def _values(spec: TensorSpec, data: bytes) -> list[Any]:
    array = np.frombuffer(data, NUMPY_NAME[spec.dtype])
    values: list[Any] = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        # JSON has no word for these; the binary form carries them.
        finite = np.isfinite(array).tolist()
        return [value if ok else None for value, ok in zip(values, finite, strict=True)]
    return values


def _json(data: memoryview) -> object:
    if len(data) == 0:
        raise ServeError(ReasonCode.BAD_REQUEST, "the request is empty")
    try:
        value: object = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise ServeError(ReasonCode.BAD_REQUEST, f"the request is not JSON: {error}") from None
    return value


def _inputs(value: object, tail: memoryview) -> tuple[Tensor, ...]:
    tensors, at = [], 0
    for entry in _list(value, "inputs"):
        given = _object(entry, "an input")
        name = _name(given)
        parameters = _parameters(given, f"input {name!r}")
        size = parameters.get("binary_data_size")
        data: memoryview | list[Any]
        if size is None:
            data = _list(given.get("data"), f"data of input {name!r}", limit=None)
        elif "data" in given or not _is_count(size) or size > len(tail) - at:
            detail = f"input {name!r}: binary_data_size {size!r} does not fit the request"
            raise ServeError(ReasonCode.BAD_REQUEST, detail)
        else:
            data, at = tail[at : at + size], at + size
        tensors.append(Tensor(name, _datatype(given, name), _shape(given, name), data))
    if at != len(tail):
        detail = f"{len(tail) - at} bytes follow the last input"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    return tuple(tensors)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ServeError(ReasonCode.BAD_REQUEST, f"{what} must be a JSON object")
    return value


def _list(value: object, what: str, limit: int | None = _MAX_TENSORS) -> list[Any]:
    if not isinstance(value, list) or (limit is not None and len(value) > limit):
        raise ServeError(ReasonCode.BAD_REQUEST, f"{what} must be a JSON list")
    return value


def _parameters(value: dict[str, Any], what: str) -> dict[str, Any]:
    parameters = _object(value.get("parameters", {}), f"parameters of {what}")
    for name in _NOT_SERVED:
        if parameters.get(name):
            raise ServeError(ReasonCode.BAD_REQUEST, f"{what}: {name} is not supported here")
    return parameters


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ServeError(ReasonCode.BAD_REQUEST, f"{name} must be true or false")
    return value


def _name(value: dict[str, Any]) -> str:
    name = value.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ServeError(ReasonCode.BAD_REQUEST, "a tensor has no name")
    return name


def _datatype(value: dict[str, Any], name: str) -> str:
    datatype = value.get("datatype")
    if not isinstance(datatype, str) or len(datatype) > _MAX_NAME:
        raise ServeError(ReasonCode.BAD_REQUEST, f"input {name!r} has no datatype")
    return datatype


def _shape(value: dict[str, Any], name: str) -> Shape:
    shape = value.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(map(_is_count, shape)):
        detail = f"shape of input {name!r} must be a list of at most {_MAX_RANK} sizes"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    return tuple(shape)


def _is_count(value: object) -> bool:
    # bool is an int to Python, and not to the protocol; no honest size is near 2**48.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    """The protocol's ``timeout`` parameter is in microseconds; 0 means none."""
    value = parameters.get("timeout", 0)
    if not _is_count(value):
        raise ServeError(ReasonCode.BAD_REQUEST, "timeout must be a number of microseconds")
    return min(value, _MAX_TIMEOUT_US) / 1e6 if value else None
