"""Holds one engine for the check, in a process of its own: a runtime that crashes ends only this.

Speaks JSON lines: first what was loaded or why not, then for each ``{"runs": n}`` the nanoseconds
of so many runs, with the answers to the samples the first time; ``{"layers": true}`` asks what
its layers take, and makes it slower for good.
"""

import json
import os
import sys
import time
from typing import Any

import numpy as np

from stoker_builder.tensorrt.layer_times import time_layers
from stoker_contract.errors import ContractError
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine.backends import open_engine
from stoker_engine.engine import Engine, EngineError
from stoker_engine.tensorrt_backend import TensorRtEngine

SAMPLES, SEED = 16, 5


def samples(engine: Engine) -> list[dict[str, Any]]:
    """Noise for the engine's inputs, the same in every process."""
    rng = np.random.default_rng(SEED)
    specs = engine.io.inputs
    return [
        {spec.name: rng.normal(size=spec.shape).astype(np.float32) for spec in specs}
        for _ in range(SAMPLES)
    ]


def layers(engine: Engine, inputs: dict[str, Any], options: SessionOptions) -> object:
    """What the layers of a plan take; None of anything else."""
    if not isinstance(engine, TensorRtEngine):
        return None
    found = time_layers(engine, inputs, options.runtime or Runtime.TENSORRT)
    return None if found is None else found.to_object()


def main(path: str, kind: str, session: str) -> None:
    """Load the file, then do as standard input says."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print where they like

    def say(**what: object) -> None:
        answers.write(json.dumps(what) + "\n")

    began = time.monotonic()
    try:
        options = SessionOptions.parse(session.encode())
        engine = open_engine(path, ArtifactKind(kind), options)
        given = samples(engine)
        wanted = [spec.name for spec in engine.io.outputs]
        answered = [engine.run(inputs, wanted)[0].ravel().tolist() for inputs in given]
    except (EngineError, ContractError) as error:
        say(code=error.code, detail=error.detail)
        return
    load_s = time.monotonic() - began
    say(answers=answered, load_s=load_s, providers=getattr(engine, "providers", None))
    for line in sys.stdin:
        asked, taken = json.loads(line), []
        if "layers" in asked:
            say(layers=layers(engine, given[0], options))
            continue
        for index in range(asked["runs"]):
            begin_ns = time.perf_counter_ns()
            engine.run(given[index % SAMPLES], wanted)
            taken.append(time.perf_counter_ns() - begin_ns)
        say(ns=taken)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
