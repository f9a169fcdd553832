"""Named arrays through a pipe: one JSON line of headers, then the raw bytes.

Spoken between a builder and its own child processes, and kept as files for a build worker.
"""

import json
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray


def write_frame(stream: IO[bytes], arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Send one frame."""
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = [[name, a.dtype.str, list(a.shape)] for name, a in packed.items()]
    stream.write(json.dumps(header).encode() + b"\n")
    for array in packed.values():
        stream.write(array.tobytes())
    stream.flush()


def read_frame(stream: IO[bytes]) -> dict[str, NDArray[np.generic]] | None:
    """Receive one frame; None when the other side has gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, dtype, shape in json.loads(line):
        length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        data = stream.read(length)
        if len(data) < length:
            return None
        arrays[name] = np.frombuffer(data, dtype=dtype).reshape(shape)
    return arrays
