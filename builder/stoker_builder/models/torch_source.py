"""Taking in a PyTorch model: make it, export it, and check that the export answers alike."""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.entrypoints import call, load_entry, quiet
from stoker_builder.models.onnx_source import fix_shapes, load_onnx, opset_of, strip
from stoker_builder.models.source import Inputs, SourceModel, TorchModel, io_of

# of the largest answer: FP32 sums in another order differ by a few units of the last place
EXPORT_TOLERANCE: Final = 1e-3


def make_module(model: TorchModel) -> torch.nn.Module:
    """Make the module, with its weights, ready for inference.

    Raises:
        BuildError: ``FACTORY`` or ``WEIGHTS``.
    """
    factory = load_entry(model.factory, BuildCode.FACTORY)
    module = call(factory, model.factory, BuildCode.FACTORY)
    if not isinstance(module, torch.nn.Module):
        detail = f"{model.factory} returned {type(module).__name__}, expected a torch.nn.Module"
        raise BuildError(BuildCode.FACTORY, detail, "return the module itself")
    if model.weights is not None:
        _load_weights(module, model.weights)
    return module.eval()


def from_torch(model: TorchModel, example: Inputs, scratch: Path) -> SourceModel:
    """Export the model for inputs shaped like ``example``.

    Raises:
        BuildError: ``FACTORY``, ``WEIGHTS``, ``EXPORT`` or ``EXPORT_DIFFERS``.
    """
    module = make_module(model)
    path = scratch / "source.onnx"
    _export(module, example, path)
    proto = load_onnx(path)
    notes = fix_shapes(proto, example)
    strip(proto)
    onnx.save(proto, path)
    session = Session(path)
    difference = _check_answers(module, session, example)
    given = model.weights or path
    return SourceModel(
        path=path,
        kind="torch",
        digest=hashlib.sha256(given.read_bytes()).hexdigest(),
        opset=opset_of(proto),
        io=io_of(session),
        torch=model,
        notes=(*notes, f"the export differs from eager PyTorch by at most {difference:.1e}"),
    )


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    if path.suffix != ".safetensors":
        detail = f"{path.name}: only .safetensors weights are read, other formats can run code"
        hint = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        raise BuildError(BuildCode.UNSAFE_FORMAT, detail, hint)
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        hint = "check the path of --weights"
        raise BuildError(BuildCode.WEIGHTS, f"{path}: {error}", hint) from None
    except RuntimeError as error:
        detail = f"{path.name} does not fit the model: {' '.join(str(error).split())[:300]}"
        raise BuildError(BuildCode.WEIGHTS, detail, "use the factory of these weights") from None


def _export(module: torch.nn.Module, example: Inputs, path: Path) -> None:
    arguments = tuple(torch.from_numpy(np.array(array)) for array in example.values())
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(
                module,
                arguments,
                str(path),
                dynamo=True,
                external_data=False,  # one file: what is signed must be all there is
                verbose=False,
                input_names=list(example),
                output_names=_output_names(module, arguments),
            )
    except BuildError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        detail = f"torch.onnx.export failed with {type(error).__name__}: {reason}"
        hint = "make the forward pass exportable, or export it yourself and give the ONNX file"
        raise BuildError(BuildCode.EXPORT, detail, hint) from error


def _output_names(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> list[str]:
    count = len(eager_outputs(module, arguments))
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def eager_outputs(
    module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Run the module as it is.

    Raises:
        BuildError: ``FACTORY``, when the module does not take the sample, or gives
            something else than tensors.
    """
    try:
        with torch.inference_mode(), quiet():
            answer = module(*arguments)
    except Exception as error:
        detail = f"the module raised {type(error).__name__} on the first sample: {error}"
        hint = "samples' inputs are passed in their own order; check names, types and shapes"
        raise BuildError(BuildCode.FACTORY, detail[:600], hint) from error
    outputs = list(answer) if isinstance(answer, tuple | list) else [answer]
    if not outputs or not all(isinstance(output, torch.Tensor) for output in outputs):
        detail = f"the module answers with {type(answer).__name__}"
        raise BuildError(BuildCode.FACTORY, detail, "wrap it to return a tensor or a tuple of them")
    return outputs


def _check_answers(module: torch.nn.Module, session: Session, example: Inputs) -> float:
    arguments = tuple(torch.from_numpy(np.array(array)) for array in example.values())
    eager = eager_outputs(module, arguments)
    exported = list(session.run(example).values())
    worst = 0.0
    for one, other in zip(eager, exported, strict=True):
        expected = one.detach().numpy().astype(np.float64)
        if not np.isfinite(expected).all():
            detail = "eager PyTorch answers the first sample with NaN or infinity"
            raise BuildError(BuildCode.NOT_FINITE, detail, "check the weights and preprocessing")
        difference = float(np.abs(expected - other.astype(np.float64)).max(initial=0.0))
        allowed = EXPORT_TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
        if difference > allowed:
            detail = (
                f"the export differs from eager PyTorch by {difference:.3g} (allowed {allowed:.3g})"
            )
            hint = "is the module deterministic in eval mode? else export it yourself"
            raise BuildError(BuildCode.EXPORT_DIFFERS, detail, hint)
        worst = max(worst, difference)
    return worst
