"""Loads one artifact in a fresh process and says what it cost; started by :mod:`footprint`."""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, runtime_of
from stoker_engine.backends import open_engine

_WARM_RUNS = 10


def main() -> None:
    """Load ``argv[1]`` (of kind ``argv[2]``, set up as ``argv[3]``) and run ``argv[4]``."""
    artifact, kind = sys.argv[1], ArtifactKind(sys.argv[2])
    session = SessionOptions.parse(sys.argv[3].encode())
    with np.load(sys.argv[4], allow_pickle=False) as arrays:
        inputs = dict(arrays)
    # a device imports its runtime once, and then loads one artifact after the other
    importlib.import_module(runtime_of(kind, session.runtime).value)
    began = time.perf_counter_ns()
    engine = open_engine(artifact, kind, session)
    loaded = time.perf_counter_ns()
    names = [spec.name for spec in engine.io.outputs]
    engine.run(inputs, names)
    answered = time.perf_counter_ns()
    for _ in range(_WARM_RUNS):
        engine.run(inputs, names)
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    figures = {
        "load_ns": loaded - began,
        "first_run_ns": answered - loaded,
        "peak": _bytes(status["VmHWM"]),
        "steady": _bytes(status["VmRSS"]),
    }
    print(json.dumps(figures))  # noqa: T201  the parent reads it


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    main()
