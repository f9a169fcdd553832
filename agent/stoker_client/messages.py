"""Requests and answers of the protocol's binary form, as bytes. No I/O."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stoker_client.errors import NETWORK, InferError, error_of

Array = npt.NDArray[Any]

_DATATYPES: Final = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_NUMPY: Final = {datatype: name for name, datatype in _DATATYPES.items()}
_OK: Final = 200


class Result(dict[str, Array]):
    """Outputs by name, and whose they are.

    Attributes:
        digest: SHA-256 of the artifact that answered.
        release: ``model/version`` of it.
    """

    def __init__(self, outputs: Mapping[str, Array], digest: str, release: str) -> None:
        super().__init__(outputs)
        self.digest = digest
        self.release = release


def infer_request(
    slot: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str] | None,
    timeout_s: float | None,
) -> list[bytes]:
    """An ``infer`` request as parts to be sent one after the other.

    Raises:
        TypeError: an element type that the protocol does not have.
    """
    entries, tail = [], []
    for name, given in inputs.items():
        array = np.ascontiguousarray(given)
        datatype = _DATATYPES.get(array.dtype.name)
        if datatype is None:
            message = f"input {name!r} is {array.dtype}, which the protocol does not know"
            raise TypeError(message)
        data = array.tobytes()
        entries.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(np.shape(given)),
                "parameters": {"binary_data_size": len(data)},
            }
        )
        tail.append(data)
    parameters: dict[str, Any] = {"binary_data_output": True}
    if timeout_s is not None:
        parameters["timeout"] = max(1, int(timeout_s * 1e6))
    body: dict[str, Any] = {"inputs": entries, "parameters": parameters}
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    header = json.dumps(body, separators=(",", ":")).encode()
    length = len(header) + sum(map(len, tail))
    head = (
        f"POST /v2/models/{slot}/infer HTTP/1.1\r\nhost: localhost\r\n"
        f"inference-header-content-length: {len(header)}\r\n"
        f"content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    return [head.encode() + header, *tail]


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer.

    Raises:
        InferError: ``NETWORK``, this is not HTTP.
    """
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1])
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        int(headers["content-length"])
    except (ValueError, IndexError, KeyError):
        detail = "the answer is not HTTP with a length"
        raise InferError(NETWORK, detail) from None
    return status, headers


def result_of(status: int, headers: Mapping[str, str], body: bytes) -> Result:
    """The outputs of an answer.

    Raises:
        InferError: the server said no, or the answer is damaged.
    """
    if status != _OK:
        raise _error(status, headers, body)
    size = int(headers.get("inference-header-content-length", len(body)))
    try:
        entries = json.loads(body[:size])["outputs"]
        outputs, at = {}, size
        for entry in entries:
            dtype = np.dtype(_NUMPY[entry["datatype"]])
            length = entry.get("parameters", {}).get("binary_data_size")
            if length is None:
                array = np.array(entry["data"], dtype)
            else:
                array = np.frombuffer(body, dtype, count=length // dtype.itemsize, offset=at)
                at += length
            outputs[entry["name"]] = array.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError) as error:
        detail = f"the answer is damaged: {error}"
        raise InferError(NETWORK, detail, status=status) from None
    return Result(outputs, headers.get("stoker-digest", ""), headers.get("stoker-release", ""))


def _error(status: int, headers: Mapping[str, str], body: bytes) -> InferError:
    try:
        detail = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        detail = body[:200].decode("latin-1")
    wait = headers.get("retry-after", "")
    code = headers.get("stoker-code", "INTERNAL")
    return error_of(status, code, detail, float(wait) if wait.isdigit() else None)
