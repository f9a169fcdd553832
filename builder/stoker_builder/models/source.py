"""What a build starts from: one self-contained ONNX file with fixed shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.entrypoints import TorchModel
from stoker_contract.manifest import EngineIO, TensorSpec
from stoker_engine.onnxruntime_backend import DTYPE_OF_ORT

Inputs = Mapping[str, NDArray[np.generic]]

_UNSAFE_SUFFIXES: Final = {".pt", ".pth", ".pt2", ".pkl", ".pickle", ".bin", ".ckpt"}


@dataclass(frozen=True, slots=True)
class SourceModel:
    """The model as every candidate starts from it.

    Attributes:
        path: the ONNX file, inside the build's scratch folder.
        digest: of what the user gave: the weights, else the ONNX file.
        torch: how to run it eagerly, for models that came from PyTorch.
        notes: what was changed on the way in, for the report.
    """

    path: Path
    kind: Literal["onnx", "torch"]
    digest: str
    opset: int
    io: EngineIO
    torch: TorchModel | None = None
    notes: tuple[str, ...] = ()


def ingest(model: str, weights: Path | None, example: Inputs, scratch: Path) -> SourceModel:
    """Turn what the user named into one ONNX file with fixed shapes.

    Args:
        model: an ``.onnx`` file, or a factory as ``package.module:function``.
        weights: a ``.safetensors`` file for the factory's model.
        example: one sample's inputs; they fix the shapes.
        scratch: a folder that lives as long as the build.

    Raises:
        BuildError: with the code of what is wrong with it.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        from stoker_builder.models.onnx_source import from_onnx  # noqa: PLC0415  imports onnx

        if weights is not None:
            hint = "give --weights only with a PyTorch factory"
            raise BuildError(BuildCode.BAD_REQUEST, "an ONNX file holds its own weights", hint)
        return from_onnx(path, example, scratch)
    if path.suffix in _UNSAFE_SUFFIXES:
        detail = f"{model}: this format can run code when it is loaded"
        hint = "save the weights as .safetensors and name the factory that makes the model"
        raise BuildError(BuildCode.UNSAFE_FORMAT, detail, hint)
    if ":" not in model:
        detail = f"{model!r} is neither an .onnx file nor a factory"
        hint = "give model.onnx, or package.module:factory with --weights model.safetensors"
        code = BuildCode.MODEL_FORMAT if path.exists() else BuildCode.MODEL_MISSING
        raise BuildError(code, detail, hint)
    from stoker_builder.models.torch_source import from_torch  # noqa: PLC0415  imports torch

    return from_torch(TorchModel(model, weights), example, scratch)


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
