"""Inputs to measure with: those that were given, or made up ones.

Latency of a dense network does not depend on its inputs, that of others may: real ones are
better, and whoever has them gives them.
"""

import math
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_contract.hop import NUMPY_NAME
from stoker_contract.manifest import EngineIO, TensorSpec

MAX_BYTES: Final = 1 << 30


def made_up(io: EngineIO) -> Inputs:
    """One sample: noise for numbers with a point, ones for all others, 1 for a free dimension.

    Raises:
        BuildError: ``DATA_MISMATCH``, an input is too large to be made up.
    """
    rng = np.random.default_rng(0)
    return {spec.name: _tensor(spec, rng) for spec in io.inputs}


def read_arrays(path: Path, *, prefix: str, sample: bool) -> Inputs:
    """Read inputs from an ``.npz``.

    Args:
        path: the file.
        prefix: of the names that are inputs; it is removed.
        sample: the first axis counts samples: take the first one.

    Raises:
        BuildError: ``DATA_MISMATCH``, there are no arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            named = {name: arrays[name] for name in arrays.files if name.startswith(prefix)}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, BadZipFile) as error:
        detail = f"{path} holds no arrays: {error}"
        hint = "give an .npz with one array per input, as numpy.savez writes it"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None
    return {
        name.removeprefix(prefix): array[0] if sample else array for name, array in named.items()
    }


def _tensor(spec: TensorSpec, rng: np.random.Generator) -> NDArray[np.generic]:
    dtype = np.dtype(NUMPY_NAME[spec.dtype])
    shape = tuple(max(size, 1) for size in spec.shape)
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        detail = f"input {spec.name} has the shape {list(shape)}, which is too large to make up"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "give inputs with --inputs FILE.npz")
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)
