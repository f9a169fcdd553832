"""Runs an ONNX file on the inputs it is sent; started by ``stoker_builder.kernels.isa``.

It may run under an emulator that makes every import a hundred times slower, so it imports
nothing but ONNX Runtime and numpy.
"""

import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np
import onnxruntime

from stoker_builder.frames import read_frame, write_frame

_LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class Answerer:
    """One ONNX Runtime session, set up as the manifest's ``session`` says.

    Args:
        path: the ONNX file.
        session: ``SessionOptions`` of the contract as a plain object: the document itself
            would cost seconds to import under emulation.
    """

    def __init__(self, path: str, session: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = session["intra_op_threads"]
        options.inter_op_num_threads = 1
        options.graph_optimization_level = _LEVELS[session["graph_optimisation"]]
        options.log_severity_level = 3
        spinning = "1" if session["allow_spinning"] else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        if session["x64_quant_precision"]:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def answer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run once; returns the outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))


def serve(requests: BinaryIO, answers: BinaryIO, path: str, session: dict[str, Any]) -> None:
    """Answer frames until the requests end; the first frame out says that the model loaded."""
    answerer = Answerer(path, session)
    write_frame(answers, {"ready": np.ones(1, dtype=np.uint8)})
    while (inputs := read_frame(requests)) is not None:
        write_frame(answers, answerer.answer(inputs))


def main() -> None:
    """Serve on stdin and stdout; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, sys.argv[1], json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
