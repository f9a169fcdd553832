"""Runs a PyTorch model in its own process; started by ``stoker_builder.latency.torch_process``."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stoker_builder.child_loop import Arrays, answering_stream, opened_setup, serve
from stoker_builder.latency.torch_methods import METHODS, Tensors
from stoker_builder.models.entrypoints import TorchModel
from stoker_builder.models.torch_module import listed, make_module, output_names


def main() -> None:
    """Make the model and run it once, then serve."""
    answers = answering_stream()
    with opened_setup() as (settings, samples):
        torch.set_num_threads(settings["threads"])
        torch.set_num_interop_threads(1)
        weights = settings["weights"]
        module = make_module(TorchModel(settings["factory"], Path(weights) if weights else None))
        example = _tensors(next(samples))
        with torch.no_grad():
            model = METHODS[settings["method"]](module, example, map(_tensors, samples))
    # what a compiler or a quantiser made is not at home in inference mode
    inferring = torch.inference_mode if settings["method"] == "eager" else torch.no_grad
    with inferring():
        model(*example)
        serve(
            answers,
            lambda inputs: _named(listed(model(*_tensors(inputs)))),
            lambda: model(*example),
        )


def _tensors(frame: Arrays) -> Tensors:
    return tuple(torch.from_numpy(array.copy()) for array in frame.values())


def _named(outputs: list[torch.Tensor]) -> dict[str, NDArray[np.generic]]:
    names = output_names(len(outputs))
    return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


if __name__ == "__main__":
    main()
