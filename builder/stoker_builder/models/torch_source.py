"""Taking in a PyTorch model: make it, export it, and check that the export answers alike."""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.entrypoints import TorchModel, quiet
from stoker_builder.models.onnx_source import fix_shapes, load_onnx, opset_of, strip
from stoker_builder.models.source import Inputs, SourceModel, io_of
from stoker_builder.models.torch_module import make_module, output_names, outputs_of

# of the largest answer: FP32 sums in another order differ by a few units of the last place
EXPORT_TOLERANCE: Final = 1e-3


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
                output_names=output_names(len(outputs_of(module, arguments))),
            )
    except BuildError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        detail = f"torch.onnx.export failed with {type(error).__name__}: {reason}"
        hint = "make the forward pass exportable, or export it yourself and give the ONNX file"
        raise BuildError(BuildCode.EXPORT, detail, hint) from error


def _check_answers(module: torch.nn.Module, session: Session, example: Inputs) -> float:
    arguments = tuple(torch.from_numpy(np.array(array)) for array in example.values())
    eager = outputs_of(module, arguments)
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
