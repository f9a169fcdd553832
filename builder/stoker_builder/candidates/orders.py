"""What there is to quantise, with all that follows from the calibration samples already in files.

So that another process can do it, which need not have the data set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stoker_builder.candidates.bias import Means
from stoker_builder.candidates.recipes import Recipe
from stoker_contract.target import Runtime

Inputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Order:
    """One file to make.

    Attributes:
        model: what is quantised.
        path: where the file goes.
        ranges: of the activations, as ONNX Runtime's quantiser reads them; of static files.
        means: of what is multiplied with weights, where biases follow from the weights.
        samples: some calibration samples, where biases are measured.
    """

    recipe: Recipe
    model: Path
    path: Path
    ranges: Path | None = None
    means: Path | None = None
    samples: Path | None = None

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`encode` wrote."""
        told: dict[str, Any] = json.loads(text)
        recipe = told.pop("recipe")
        for name in ("operators", "runtimes"):
            if recipe[name] is not None:
                kind = Runtime if name == "runtimes" else str
                recipe[name] = tuple(kind(value) for value in recipe[name])
        paths = {name: Path(value) for name, value in told.items() if value is not None}
        return cls(recipe=Recipe(**recipe), **paths)


def save_means(means: Means, path: Path) -> None:
    """Write the means of some tensors."""
    values = {str(index): array for index, array in enumerate(means.values())}
    np.savez(path, allow_pickle=False, names=np.array(list(means), np.str_), **values)


def load_means(path: Path) -> Means:
    """Read what :func:`save_means` wrote."""
    with np.load(path, allow_pickle=False) as held:
        return {str(name): held[str(index)] for index, name in enumerate(held["names"])}


def save_samples(samples: Sequence[Inputs], path: Path) -> None:
    """Write the inputs of some samples."""
    arrays = {
        f"{position}:{name}": array
        for position, sample in enumerate(samples)
        for name, array in sample.items()
    }
    np.savez(path, allow_pickle=False, **arrays)


def load_samples(path: Path) -> tuple[Inputs, ...]:
    """Read what :func:`save_samples` wrote."""
    found: dict[int, dict[str, NDArray[np.generic]]] = {}
    with np.load(path, allow_pickle=False) as held:
        for key in held.files:
            position, _, name = key.partition(":")
            found.setdefault(int(position), {})[name] = held[key]
    return tuple(found[position] for position in sorted(found))
