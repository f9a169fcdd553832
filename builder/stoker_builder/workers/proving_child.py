"""Runs an artifact with the code that ships; started by :func:`workers.proving.prove`."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from stoker_builder.frames import read_frame, write_frame
from stoker_builder.tensorrt.layer_times import time_layers
from stoker_builder.workers.proving import Proof, ProofJob
from stoker_contract.codes import ReasonCode
from stoker_contract.target import runtime_of
from stoker_engine.backends import open_engine
from stoker_engine.engine import EngineError
from stoker_engine.tensorrt_backend import TensorRtEngine


def run_samples(job: ProofJob) -> Proof:
    """Load it, answer every sample into a file, and time each run but the first.

    Raises:
        EngineError: it does not load, or does not answer.
    """
    engine = open_engine(job.artifact, job.kind, job.session)
    names = [spec.name for spec in engine.io.outputs]
    took_ns = []
    with Path(job.samples).open("rb") as samples, Path(job.answers).open("wb") as answers:
        while (inputs := read_frame(samples)) is not None:
            began_ns = time.perf_counter_ns()
            outputs = engine.run(inputs, names)
            took_ns.append(time.perf_counter_ns() - began_ns)
            write_frame(answers, dict(zip(names, outputs, strict=True)))
    if not took_ns:
        raise EngineError(ReasonCode.BAD_REQUEST, "there is no sample to answer")
    took_ms = np.array(took_ns[1:] or took_ns) / 1e6
    p50_ms, p99_ms = np.quantile(took_ms, (0.5, 0.99))
    return Proof(runs=len(took_ns), p50_ms=float(p50_ms), p99_ms=float(p99_ms))


def run_profiled(job: ProofJob) -> Proof:
    """Load it, and look where the time of the first sample goes; only a plan tells.

    Raises:
        EngineError: it does not load or run.
    """
    engine = open_engine(job.artifact, job.kind, job.session)
    with Path(job.samples).open("rb") as samples:
        inputs = read_frame(samples)
    if inputs is None or not isinstance(engine, TensorRtEngine):
        return Proof()
    runtime = runtime_of(job.kind, job.session.runtime)
    return Proof(operators=time_layers(engine, inputs, runtime))


def main() -> None:
    """Do the job on standard input and say on standard output how it went."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print where they like
    try:
        job = ProofJob.parse(sys.stdin.buffer.read())
        proof = run_profiled(job) if job.layers else run_samples(job)
    except EngineError as error:
        said = f"{error.code}: {error.detail}"[:1000]
        none_here = error.code is ReasonCode.NO_GPU
        proof = Proof(no_gpu=said) if none_here else Proof(refused=said)
    answers.write(proof.encode())
    answers.close()


if __name__ == "__main__":
    main()
