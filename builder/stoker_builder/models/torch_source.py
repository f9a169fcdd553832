"""Taking in a PyTorch model: make it, export it, and check that the export answers alike."""

import hashlib
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.bounded import DEFAULT_BOUNDS, Bounds
from stoker_builder.models.code_source import weights_of
from stoker_builder.models.entrypoints import TorchModel, quiet
from stoker_builder.models.onnx_source import from_onnx
from stoker_builder.models.source import CODE_SUFFIXES, Inputs, Taken
from stoker_builder.models.torch_module import make_module, output_names, outputs_of

# of the largest answer: FP32 sums in another order differ by a few units of the last place
EXPORT_TOLERANCE: Final = 1e-3


def from_torch(
    model: TorchModel, example: Inputs, scratch: Path, bounds: Bounds = DEFAULT_BOUNDS
) -> Taken:
    """Make the model, and export it for inputs shaped like ``example``.

    Raises:
        BuildError: ``FACTORY``, ``WEIGHTS``, ``EXPORT``, ``EXPORT_DIFFERS``; or what taking
            in the export raises.
    """
    given = model.weights
    if given is not None and given.suffix in CODE_SUFFIXES:
        model = replace(model, weights=weights_of(given, scratch, bounds))
    module = make_module(model)
    exported = scratch / "exported.onnx"
    note = difference_note(export_checked(module, example, exported))
    taken = from_onnx(exported, example, scratch / "source.onnx", bounds)
    exported.unlink()
    # what was exported names places of this machine, what was taken in does not
    digest = hashlib.sha256((given or taken.source.path).read_bytes()).hexdigest()
    notes = (*taken.source.notes, note)
    source = replace(taken.source, kind="torch", digest=digest, torch=model, notes=notes)
    return Taken(source, taken.scheme)


def export_checked(module: torch.nn.Module, example: Inputs, path: Path) -> float:
    """Export, and return how far the export's answers are from the module's.

    Raises:
        BuildError: ``FACTORY``, ``EXPORT``, ``EXPORT_DIFFERS`` or ``NOT_FINITE``.
    """
    _export(module, example, path)
    return _check_answers(module, Session(path), example)


def difference_note(difference: float) -> str:
    """For the report."""
    return f"the export differs from eager PyTorch by at most {difference:.1e}"


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
                # TorchScript has only the older exporter
                dynamo=not isinstance(module, torch.jit.ScriptModule),
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
