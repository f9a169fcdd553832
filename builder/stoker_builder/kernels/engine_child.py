"""Runs one artifact on what it is sent; started by :class:`kernels.engines.EngineChild`."""

import os

from stoker_builder.child_loop import Arrays, answering_stream, opened_setup, serve
from stoker_builder.kernels.cap import LEVEL, check_capped
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine.backends import open_engine


def main() -> None:
    """Load what the set-up names, and serve."""
    answers = answering_stream()
    with opened_setup() as (settings, samples):
        timed = next(samples)
    session = SessionOptions.parse_object(settings["session"])
    engine = open_engine(settings["path"], ArtifactKind.ONNX, session)
    if LEVEL in os.environ and session.runtime in {None, Runtime.ONNXRUNTIME}:
        check_capped()
    names = [spec.name for spec in engine.io.outputs]

    def answer(inputs: Arrays) -> Arrays:
        return dict(zip(names, engine.run(inputs, names), strict=True))

    serve(answers, answer, lambda: engine.run(timed, names))


if __name__ == "__main__":
    main()
