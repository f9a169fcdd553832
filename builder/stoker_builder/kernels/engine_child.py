"""Runs one artifact on what it is sent; started by :class:`kernels.engines.EngineChild`."""

import json
import os
import sys
import time
from typing import BinaryIO

from stoker_builder.frames import read_frame, write_frame
from stoker_builder.kernels.cap import LEVEL, check_capped
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine.backends import open_engine

ANSWER = b"answer\n"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Load what the first line names, then answer or time until the requests end."""
    setup = json.loads(requests.readline())
    session = SessionOptions.parse_object(setup["session"])
    engine = open_engine(setup["path"], ArtifactKind.ONNX, session)
    if LEVEL in os.environ and session.runtime in {None, Runtime.ONNXRUNTIME}:
        check_capped()
    names = [spec.name for spec in engine.io.outputs]
    timed = read_frame(requests)
    if timed is None:
        return
    _say(answers, b"ready\n")
    while command := requests.readline():
        if command == ANSWER:
            inputs = read_frame(requests)
            if inputs is None:
                return
            outputs = engine.run(inputs, names)
            write_frame(answers, dict(zip(names, outputs, strict=True)))
        else:
            started = time.perf_counter_ns()
            engine.run(timed, names)
            _say(answers, b"%d\n" % (time.perf_counter_ns() - started))


def _say(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
