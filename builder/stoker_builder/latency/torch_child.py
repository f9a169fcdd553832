"""Runs a PyTorch model in its own process; started by ``stoker_builder.latency.torch_process``.

Protocol: ``argv[1]`` names a file with one JSON line of set-up, the timed sample and the
calibration samples, as frames. When the model has run once, ``{"ready": true}`` goes out. Then
``time`` is answered with the nanoseconds that one inference of the timed sample took, and
``answer`` and a frame of inputs with ``{"ready": true}`` and a frame of outputs.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker_builder.frames import read_frame, write_frame
from stoker_builder.latency.torch_methods import METHODS, Tensors
from stoker_builder.models.entrypoints import TorchModel
from stoker_builder.models.torch_module import listed, make_module, output_names

ANSWER = b"answer\n"


def serve(setup: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Set up once, then time or answer for each line until the requests end."""
    with setup.open("rb") as stream:
        settings = json.loads(stream.readline())
        torch.set_num_threads(settings["threads"])
        torch.set_num_interop_threads(1)
        weights = settings["weights"]
        module = make_module(TorchModel(settings["factory"], Path(weights) if weights else None))
        example = next(_samples(stream))
        with torch.no_grad():
            model = METHODS[settings["method"]](module, example, _samples(stream))
    # what a compiler or a quantiser made is not at home in inference mode
    inferring = torch.inference_mode if settings["method"] == "eager" else torch.no_grad
    with inferring():
        model(*example)
        _reply(answers, {"ready": True})
        while command := requests.readline():
            if command == ANSWER:
                outputs = listed(model(*_tensors(read_frame(requests) or {})))
                _reply(answers, {"ready": True})
                write_frame(answers, _named(outputs))
            else:
                started = time.perf_counter_ns()
                model(*example)
                _reply(answers, {"ns": time.perf_counter_ns() - started})


def _samples(stream: IO[bytes]) -> Iterator[Tensors]:
    while (frame := read_frame(stream)) is not None:
        yield _tensors(frame)


def _tensors(frame: dict[str, NDArray[np.generic]]) -> Tensors:
    return tuple(torch.from_numpy(array.copy()) for array in frame.values())


def _named(outputs: list[torch.Tensor]) -> dict[str, NDArray[np.generic]]:
    names = output_names(len(outputs))
    return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


def _reply(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever the model prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Path(sys.argv[1]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
