"""A build for a board that takes few seconds: a small net as ONNX, and noise that nobody labelled.

``dataset`` is the entry point that the build imports.
"""

from pathlib import Path

import onnx

from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.request import BuildRequest
from support.small_cnn import samples, small_cnn
from support.tiny_build import request_for

SAMPLES = 300


def dataset() -> MemoryDataSet:
    """Images of noise."""
    images = (sample.inputs for sample in samples(SAMPLES))
    return MemoryDataSet(
        [Sample(image, None, f"{position}") for position, image in enumerate(images)],
        "noise",
        labelled=False,
    )


def board_request(output: Path, **changes: object) -> BuildRequest:
    """A request for a release of the small net; nothing is timed."""
    model = output.parent / "model.onnx"
    if not model.exists():
        onnx.save(small_cnn(), model)
    settings: dict[str, object] = {
        "model": str(model),
        "data": f"{__file__}:dataset",
        "budget": 0.05,
        "latency_s": 0.0,
        "torch_routes": (),
        "name": "small",
    }
    return request_for(output, **{**settings, **changes})
