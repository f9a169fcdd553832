"""The golden set: the answers a release must give on this device, read and scored."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stoker_contract.codes import ReasonCode
from stoker_contract.hop import NUMPY_NAME
from stoker_contract.manifest import EngineIO, Golden, TensorSpec
from stoker_server.errors import ServeError
from stoker_server.worker import Call, Outputs

Array = npt.NDArray[Any]

_WORST: Final = 1e308  # what stands for "not a number" in a document that must be plain JSON


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Samples that are ready to run, and what is expected of each."""

    calls: tuple[Call, ...]
    expected: tuple[tuple[Array, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one answer agrees, and by how much it is off at worst."""

    agrees: bool
    worst_error: float


def read_golden(path: Path, golden: Golden, io: EngineIO) -> GoldenSet:
    """Read and check a golden file. Blocking: call it in a thread.

    Raises:
        ServeError: ``DIGEST_MISMATCH``, or ``MALFORMED`` when it does not fit the engine.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        detail = f"golden file can not be read: {error}"
        raise ServeError(ReasonCode.MALFORMED, detail) from None
    if len(data) != golden.length or hashlib.sha256(data).hexdigest() != golden.digest:
        raise ServeError(ReasonCode.DIGEST_MISMATCH, f"{path} is not the golden file it should be")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs = [_array(arrays, "input", spec, golden.samples) for spec in io.inputs]
            outputs = [_array(arrays, "expected", spec, golden.samples) for spec in io.outputs]
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        detail = f"golden file does not fit the engine: {error}"
        raise ServeError(ReasonCode.MALFORMED, detail) from None
    everything = (1 << len(io.outputs)) - 1
    calls = tuple(
        Call(
            [memoryview(array[index]).cast("B") if array[index].size else b"" for array in inputs],
            tuple(array.shape[1:] for array in inputs),
            everything,
        )
        for index in range(golden.samples)
    )
    expected = tuple(tuple(array[i] for array in outputs) for i in range(golden.samples))
    return GoldenSet(calls, expected)


def judge(golden: Golden, io: EngineIO, expected: Sequence[Array], outputs: Outputs) -> Verdict:
    """Hold one answer against what was expected. What is not a number never agrees."""
    agrees, worst = True, 0.0
    for index, (spec, wanted) in enumerate(zip(io.outputs, expected, strict=True)):
        shape = outputs.shapes[index]
        given = np.frombuffer(outputs.buffers[index], NUMPY_NAME[spec.dtype]).reshape(shape)
        if given.shape != wanted.shape:
            return Verdict(agrees=False, worst_error=_WORST)
        if given.size == 0:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            errors = np.abs(given.astype(np.float64) - wanted.astype(np.float64))
        error = float(errors.max())
        worst = max(worst, error if np.isfinite(error) else _WORST)
        agrees = agrees and bool((errors <= golden.tolerance).all())
        if index == 0 and golden.agreement == "argmax":
            same = np.atleast_1d(given).argmax(-1) == np.atleast_1d(wanted).argmax(-1)
            agrees = agrees and bool(np.all(same))
    return Verdict(agrees=agrees, worst_error=min(worst, _WORST))


def _array(arrays: Any, kind: str, spec: TensorSpec, samples: int) -> Array:  # noqa: ANN401 - NpzFile is generic by version
    array: Array = arrays[f"{kind}.{spec.name}"]
    shape = array.shape[1:]
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, dim) for want, dim in zip(spec.shape, shape, strict=True)
    )
    if array.ndim == 0 or array.shape[0] != samples or not fits:
        detail = f"{kind}.{spec.name} has shape {list(array.shape)} for {samples} samples"
        raise ServeError(ReasonCode.MALFORMED, detail)
    if kind == "input" and array.dtype != np.dtype(NUMPY_NAME[spec.dtype]):
        detail = f"input.{spec.name} is {array.dtype}, the engine takes {spec.dtype}"
        raise ServeError(ReasonCode.MALFORMED, detail)
    return np.ascontiguousarray(array)
