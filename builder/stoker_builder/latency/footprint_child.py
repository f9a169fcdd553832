"""Loads one artifact in a fresh process and says what it cost; started by :mod:`footprint`."""

import json
import sys
from pathlib import Path

import numpy as np

from stoker_contract.manifest import SessionOptions
from stoker_engine.onnxruntime_backend import OnnxRuntimeEngine

_WARM_RUNS = 10


def main() -> None:
    """Load ``argv[1]``, run the inputs of ``argv[2]`` (an ``.npz``) and print the memory used."""
    engine = OnnxRuntimeEngine(sys.argv[1], SessionOptions())
    with np.load(sys.argv[2], allow_pickle=False) as arrays:
        inputs = dict(arrays)
    names = [spec.name for spec in engine.io.outputs]
    for _ in range(_WARM_RUNS):
        engine.run(inputs, names)
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    print(  # noqa: T201  the parent reads it
        json.dumps({"peak": _bytes(status["VmHWM"]), "steady": _bytes(status["VmRSS"])})
    )


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    main()
