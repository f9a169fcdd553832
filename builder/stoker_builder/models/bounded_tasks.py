"""What a bounded child can do. Each function runs there, and nowhere else."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame
from stoker_builder.kernels.sessions import Session

Inputs = dict[str, NDArray[np.generic]]
Task = Callable[[Mapping[str, Any], Path], dict[str, Any]]


def trial(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load an ONNX file and run one sample; say how far the answers are from another file's."""
    inputs = _inputs(folder)
    outputs = Session(Path(request["model"])).run(inputs)
    if request.get("against") is None:
        return {"difference": None}
    try:
        expected = Session(Path(request["against"])).run(inputs)
    except BuildError:
        return {"difference": None}  # it could not be run before, so nothing was lost
    return {"difference": difference(expected.values(), outputs.values())}


def difference(expected: Any, found: Any) -> float:  # noqa: ANN401  arrays of any types
    """The largest difference, relative to the largest expected value where that is over one."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        wanted, had = one.astype(np.float64), other.astype(np.float64)
        if wanted.shape != had.shape or not np.array_equal(np.isnan(wanted), np.isnan(had)):
            return float("inf")
        apart = np.nan_to_num(np.abs(wanted - had)).max(initial=0.0)
        worst = max(worst, float(apart / max(1.0, np.nan_to_num(np.abs(wanted)).max(initial=0.0))))
    return worst


def weights(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Read a state dict without running code, and write it as safetensors."""
    import torch  # noqa: PLC0415  only the tasks about PyTorch pay for it
    from safetensors.torch import save_file  # noqa: PLC0415

    state = torch.load(request["model"], map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        detail = f"it holds a {type(state).__name__}, not a state dict"
        raise BuildError(BuildCode.WEIGHTS, detail, "torch.save(model.state_dict(), path)")
    strange = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if strange:
        detail = f"{strange[0]!r} of the state dict is not a tensor"
        raise BuildError(BuildCode.WEIGHTS, detail, "torch.save(model.state_dict(), path)")
    # tensors that share memory are written apart: safetensors refuses them otherwise
    tensors = {str(name): tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "weights.safetensors")
    return {}


def convert(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load a PyTorch model, which may run its code, and export it."""
    from stoker_builder.models.torch_files import load_module  # noqa: PLC0415  imports torch
    from stoker_builder.models.torch_source import export_checked  # noqa: PLC0415

    module = load_module(Path(request["model"]))
    inputs = _inputs(folder)
    return {"difference": export_checked(module, inputs, folder / "exported.onnx")}


def _inputs(folder: Path) -> Inputs:
    with (folder / "inputs").open("rb") as stream:
        return read_frame(stream) or {}


TASKS: Final[Mapping[str, Task]] = {"trial": trial, "weights": weights, "convert": convert}
