"""Photographs to calibrate and certify EfficientNet-Lite0 on.

With ``STOKER_PHOTOS`` (or the argument ``folder``) naming a folder of labelled photographs,
the gate compares right answers. Without, it compares the answers of the candidate with those
of the reference over crops of the twenty photographs in the ``foolbox`` package. ``note``
says which of the two it was.
"""

import csv
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stoker_builder.data import MemoryDataSet, Sample

SIDE: Final = 224
BORDER: Final = 32  # the published evaluation cuts this off around the centre
PREPROCESSING: Final = (
    "RGB; central square of 224/256 of the shorter side, bicubic to 224x224; "
    "(x/255 - 127/255) / (128/255); NCHW float32"
)
CROPS_PER_PHOTO: Final = 40
SMALLEST_CROP: Final = 0.8  # of the shorter side: what a certifying crop still shows
CALIBRATION_CROPS: Final = 100
SMALLEST_CALIBRATION_CROP: Final = 0.5  # wider variety: few photographs stand for many
SELECTION_CROPS: Final = 200
CALIBRATION_PHOTOS: Final = 5  # of the packaged ones, when the others certify

Pixels = NDArray[np.uint8]  # [224, 224, 3]


@dataclass(slots=True)
class Photographs:
    """A sequence of samples; each is decoded when first asked for, and kept as bytes.

    Attributes:
        sources: for each sample its key, its label and how to get its pixels.
    """

    sources: Sequence[tuple[str, int | None, Callable[[], Pixels]]]
    _pixels: dict[int, Pixels] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int, /) -> Sample:
        key, label, load = self.sources[index]
        if index not in self._pixels:
            self._pixels[index] = load()
        return Sample(inputs={"x": prepare(self._pixels[index])}, label=label, key=key)


def dataset(folder: str | None = None) -> MemoryDataSet:
    """Return the labelled photographs of ``folder``, or else crops from a package.

    Args:
        folder: photographs and a ``labels.csv`` with the columns file and class index;
            ``STOKER_PHOTOS`` when absent.

    Raises:
        FileNotFoundError: neither is there; the message says what to install.
    """
    folder = folder or os.environ.get("STOKER_PHOTOS")
    if folder:
        return _labelled(Path(folder))
    return crops()


def crops() -> MemoryDataSet:
    """Return crops of the packaged photographs, without labels.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    return _crops_of(packaged_photos())


def prepare(pixels: Pixels) -> NDArray[np.float32]:
    """Turn ``[224, 224, 3]`` bytes into what the network was trained on."""
    scaled = (pixels.astype(np.float32) - np.float32(127)) / np.float32(128)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis])


def centre(image: Image.Image) -> Pixels:
    """Cut the central square out as the published evaluation does."""
    side = round(min(image.size) * SIDE / (SIDE + BORDER))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resized(image, (left, top, left + side, top + side))


def packaged_photos() -> list[Path]:
    """Find the ImageNet photographs that the ``foolbox`` package carries, without importing it.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("foolbox")
    places = (spec.submodule_search_locations or []) if spec else []
    photos = sorted(path for place in places for path in Path(place).glob("data/imagenet_*.jpg"))
    if not photos:
        msg = "no photographs: set STOKER_PHOTOS, or pip install --no-deps foolbox==3.3.4"
        raise FileNotFoundError(msg)
    return photos


def _labelled(folder: Path) -> MemoryDataSet:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (row[0], int(row[1])) for row in csv.reader(file) if len(row) > 1 and row[1].isdigit()
        ]
    try:
        photos = packaged_photos()
        calibration, selection = _calibration(photos), _selection(photos)
        apart = f"calibrated and chosen on crops of {len(photos)} other photographs"
    except FileNotFoundError:
        calibration, selection = None, None
        apart = "photographs to calibrate and to choose on set aside"
    return MemoryDataSet(
        samples=Photographs([(name, label, _loader(folder / name)) for name, label in rows]),
        name="photographs",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"right answers on {len(rows)} labelled photographs; {apart}",
        calibration=calibration,
        selection=selection,
    )


def _crops_of(photos: Sequence[Path]) -> MemoryDataSet:
    """Crops of some photographs calibrate, crops of the others certify."""
    certify = photos[CALIBRATION_PHOTOS:]
    samples = Photographs(
        [
            (f"{path.stem}#{number}", None, _cropper(path, number, SMALLEST_CROP))
            for path in certify
            for number in range(CROPS_PER_PHOTO)
        ]
    )
    return MemoryDataSet(
        samples=samples,
        name="crops",
        preprocessing=PREPROCESSING,
        labelled=False,
        note=(
            f"agreement with FP32 on {len(samples)} crops of {len(certify)} photographs, "
            f"no labels; set STOKER_PHOTOS to certify on labelled ones"
        ),
        calibration=_calibration(photos[:CALIBRATION_PHOTOS]),
    )


def _calibration(photos: Sequence[Path]) -> Photographs:
    return Photographs(
        [
            (f"{path.stem}#{number}", None, _cropper(path, number, SMALLEST_CALIBRATION_CROP))
            for path in photos
            for number in range(CALIBRATION_CROPS // len(photos))
        ]
    )


def _selection(photos: Sequence[Path]) -> Photographs:
    """Other crops of the same photographs; their labels are in their names."""
    return Photographs(
        [
            (f"{path.stem}@{number}", _label(path), _cropper(path, -1 - number, SMALLEST_CROP))
            for path in photos
            for number in range(SELECTION_CROPS // len(photos))
        ]
    )


def _label(photo: Path) -> int:
    return int(photo.stem.rpartition("_")[2])  # imagenet_NUMBER_LABEL.jpg


def _loader(path: Path) -> Callable[[], Pixels]:
    def load() -> Pixels:
        with Image.open(path) as image:
            return centre(image.convert("RGB"))

    return load


def _cropper(path: Path, number: int, smallest: float) -> Callable[[], Pixels]:
    def load() -> Pixels:
        # The same crops on every machine, whatever the order they are asked for in.
        seed = hashlib.sha256(f"{path.name}#{number}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        image = _decoded(path)
        side = round(min(image.size) * rng.uniform(smallest, 1.0))
        left = int(rng.integers(image.width - side + 1))
        top = int(rng.integers(image.height - side + 1))
        pixels = _resized(image, (left, top, left + side, top + side))
        return pixels[:, ::-1] if rng.random() < 0.5 else pixels  # noqa: PLR2004 - a coin

    return load


@lru_cache(maxsize=32)
def _decoded(path: Path) -> Image.Image:
    """A photograph that many crops are cut from."""
    with Image.open(path) as image:
        return image.convert("RGB")


def _resized(image: Image.Image, box: tuple[int, int, int, int]) -> Pixels:
    square = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(square, dtype=np.uint8)
