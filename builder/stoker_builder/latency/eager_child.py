"""Times PyTorch eager in its own process; started by ``stoker_builder.latency.eager``.

Protocol: one JSON line of set-up and one frame of inputs in, ``{"ready": ...}`` out; then
each ``run`` line is answered with the nanoseconds one inference took.
"""

import json
import os
import sys
import time
from typing import IO, Any

import torch

from stoker_builder.errors import BuildCode
from stoker_builder.frames import read_frame
from stoker_builder.models.entrypoints import call, load_entry


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Set up once, then time one inference for each line until the requests end."""
    setup = json.loads(requests.readline())
    frame = read_frame(requests)
    if frame is None:
        return
    torch.set_num_threads(setup["threads"])
    torch.set_num_interop_threads(1)
    model = _model(setup["factory"]).eval()
    if setup["weights"] is not None:
        from safetensors.torch import load_file  # noqa: PLC0415 - only with separate weights

        model.load_state_dict(load_file(setup["weights"]))
    inputs = [torch.from_numpy(array.copy()) for array in frame.values()]
    with torch.inference_mode():
        model(*inputs)
        _reply(answers, {"ready": True, "threads": torch.get_num_threads()})
        while requests.readline():
            started = time.perf_counter_ns()
            model(*inputs)
            _reply(answers, {"ns": time.perf_counter_ns() - started})


def _model(factory: str) -> torch.nn.Module:
    model = call(load_entry(factory, BuildCode.FACTORY), factory, BuildCode.FACTORY)
    if not isinstance(model, torch.nn.Module):
        msg = f"{factory} returned {type(model).__name__}, expected a torch.nn.Module"
        raise TypeError(msg)
    return model


def _reply(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever the model prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
