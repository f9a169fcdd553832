"""What a build starts from: one self-contained ONNX file with fixed shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.bounded import DEFAULT_BOUNDS, Bounds
from stoker_builder.models.entrypoints import TorchModel
from stoker_contract.manifest import EngineIO, TensorSpec
from stoker_engine.onnxruntime_backend import DTYPE_OF_ORT

Inputs = Mapping[str, NDArray[np.generic]]

CODE_SUFFIXES: Final = frozenset({".pt", ".pth", ".pt2", ".pkl", ".pickle", ".bin", ".ckpt"})
"""Of formats that can run code when they are loaded."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was said about a model beside its name.

    Attributes:
        shapes: that the inputs have to have.
        reference: the FP32 model that a quantised one was made from.
        trust_code: the model's file may run code, in a child without network.
        bounds: of every run of it before it is known.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reference: str | None = None
    trust_code: bool = False
    bounds: Bounds = DEFAULT_BOUNDS


DEFAULT_TERMS: Final = Terms()


@dataclass(frozen=True, slots=True)
class Prequantised:
    """A model that came quantised: a candidate like those that the builder makes.

    Attributes:
        path: the file, taken in as any other, with the same inputs and outputs as its reference.
        digest: of what the user gave.
        scheme: ``qdq``, ``qoperator``, ``dynamic`` or ``weights``.
    """

    path: Path
    digest: str
    scheme: str


@dataclass(frozen=True, slots=True)
class SourceModel:
    """The model as every candidate starts from it.

    Attributes:
        path: the ONNX file, inside the build's scratch folder.
        digest: of what the user gave: the weights, else the ONNX file.
        torch: how to run it eagerly, for models that came from a factory.
        notes: what was changed on the way in, for the report.
        prequantised: what was given, when that was quantised; the rest is its reference then.
    """

    path: Path
    kind: Literal["onnx", "torch"]
    digest: str
    opset: int
    io: EngineIO
    torch: TorchModel | None = None
    notes: tuple[str, ...] = ()
    prequantised: Prequantised | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A model that was taken in, and how it is quantised, if it is."""

    source: SourceModel
    scheme: str | None


def ingest(
    model: str, weights: Path | None, example: Inputs, scratch: Path, terms: Terms = DEFAULT_TERMS
) -> SourceModel:
    """Turn what the user named into one ONNX file with fixed shapes, and run it once.

    Args:
        model: an ``.onnx`` file; a factory as ``package.module:function``; or, where the terms
            trust it, a file of PyTorch's own.
        weights: a ``.safetensors`` file, or a state dict, for the factory's model.
        example: one sample's inputs; they fix the shapes.
        scratch: a folder that lives as long as the build.
        terms: what else was said about it.

    Raises:
        BuildError: with the code of what is wrong with it.
    """
    from stoker_builder.models.shapes import check_example, check_shapes  # noqa: PLC0415  imports onnx

    check_example(example)
    check_shapes(terms.shapes, example)
    taken = _take_in(model, weights if terms.reference is None else None, example, scratch, terms)
    if taken.scheme is None:
        if terms.reference is not None:
            detail = f"{model} is not quantised: it is its own reference"
            raise BuildError(BuildCode.BAD_REQUEST, detail, "leave --reference away")
        return taken.source
    if terms.reference is None:
        detail = f"{model} is quantised already ({taken.scheme})"
        hint = "name the FP32 model that it was made from: --reference model-fp32.onnx"
        raise BuildError(BuildCode.REFERENCE_MISSING, detail, hint)
    folder = scratch / "reference"
    folder.mkdir()
    reference = _take_in(terms.reference, weights, example, folder, terms)
    return _beside(taken, reference)


def _beside(quantised: Taken, reference: Taken) -> SourceModel:
    """The reference, with the quantised model as a candidate of it."""
    source, given = reference.source, quantised.source
    if reference.scheme is not None:
        detail = f"the reference is quantised itself ({reference.scheme})"
        hint = "name the FP32 model that the quantised one was made from"
        raise BuildError(BuildCode.BAD_REQUEST, detail, hint)
    if given.io != source.io:
        detail = f"it has {_tensors(given.io)}, its reference {_tensors(source.io)}"
        hint = "both need the same names, types and shapes, in the same order"
        raise BuildError(BuildCode.REFERENCE_DIFFERS, detail, hint)
    notes = (*source.notes, *given.notes, f"given quantised ({quantised.scheme}), with a reference")
    held = Prequantised(given.path, given.digest, str(quantised.scheme))
    return replace(source, notes=notes, prequantised=held)


def _tensors(io: EngineIO) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in (*io.inputs, *io.outputs))


def _take_in(
    model: str, weights: Path | None, example: Inputs, scratch: Path, terms: Terms
) -> Taken:
    path = Path(model)
    if path.suffix == ".onnx" or path.suffix in CODE_SUFFIXES:
        if weights is not None:
            hint = "give --weights only with a PyTorch factory"
            raise BuildError(BuildCode.BAD_REQUEST, f"{path.name} holds its own weights", hint)
        if path.suffix != ".onnx":
            from stoker_builder.models.code_source import from_code  # noqa: PLC0415  imports onnx

            return from_code(path, example, scratch, terms)
        from stoker_builder.models.onnx_source import from_onnx  # noqa: PLC0415  imports onnx

        return from_onnx(path, example, scratch / "source.onnx", terms.bounds)
    if ":" not in model:
        detail = f"{model!r} is neither an .onnx file nor a factory"
        hint = "give model.onnx, or package.module:factory with --weights model.safetensors"
        code = BuildCode.MODEL_FORMAT if path.exists() else BuildCode.MODEL_MISSING
        raise BuildError(code, detail, hint)
    from stoker_builder.models.torch_source import from_torch  # noqa: PLC0415  imports torch

    return from_torch(TorchModel(model, weights), example, scratch, terms.bounds)


def io_of(session: Session) -> EngineIO:
    """The tensors of a loaded model, as the manifest writes them.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when they can not cross the serving protocol.
    """
    try:
        return EngineIO(
            inputs=tuple(_spec(*tensor) for tensor in session.inputs),
            outputs=tuple(_spec(*tensor) for tensor in session.outputs),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        detail = f"the model's tensors can not be served: {first['loc']}: {first['msg']}"
        hint = "give it at most 64 tensors, of at most 8 dimensions, with names of 128 letters"
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from None


def _spec(name: str, ort_type: str, shape: tuple[object, ...]) -> TensorSpec:
    dtype = DTYPE_OF_ORT.get(ort_type)
    if dtype is None:
        detail = f"tensor {name} is a {ort_type}"
        hint = "only plain numeric tensors can cross the serving protocol"
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint)
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in shape)
    return TensorSpec(name=name, dtype=dtype, shape=dims)
