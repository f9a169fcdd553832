"""Pages with lines of text, for the detector. Where each line is, is known to the pixel.

A page is decided by its number alone, so two builds see the same pages, and the font is the one
that Pillow carries, so every machine does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.metrics import Boxes, BoxPrecision

SIDE: Final = 480
PAGES: Final = 440
CALIBRATION: Final = 60
SELECTION: Final = 40
PREPROCESSING: Final = (
    f"BGR, {SIDE}x{SIDE}; (x/255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225); NCHW float32"
)
_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_SPREAD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_VOCABULARY: Final = (
    "pump valve pressure bearing motor spindle coolant torque sensor gearbox shaft filter"
    " flange gasket relay fuse breaker cabinet terminal cable serial batch revision inspect"
    " replace tighten monthly weekly operator warning caution maximum minimum voltage current"
)

INK: Final = 0.3  # a pixel of the map above this is text; the published value
LEAST_SIDE: Final = 3  # pixels; smaller spots are noise
GROWTH: Final = 1.6  # the map shows the cores of the lines: how far they are grown back

Pixels = NDArray[np.uint8]  # [SIDE, SIDE, 3], RGB
Corners = NDArray[np.float64]  # [n, 4]


@dataclass(frozen=True, slots=True)
class Pages:
    """A sequence of samples, each drawn when it is asked for."""

    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Sample:
        number = self.numbers[index]
        pixels, corners = draw(number)
        label = Boxes(corners, np.zeros(len(corners)))
        return Sample(inputs={"x": prepare(pixels)}, label=label, key=f"page-{number}")


def dataset(pages: str = str(PAGES)) -> MemoryDataSet:
    """Return so many pages, the first of which calibrate and choose."""
    apart = min(CALIBRATION + SELECTION, int(pages) // 4)
    calibration = apart * CALIBRATION // (CALIBRATION + SELECTION)
    certify = range(apart, int(pages))
    return MemoryDataSet(
        samples=Pages(certify),
        name="pages",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"lines of text found on {len(certify)} drawn pages",
        calibration=Pages(range(calibration)),
        selection=Pages(range(calibration, apart)),
        metric=BoxPrecision(decode),
    )


def draw(number: int) -> tuple[Pixels, Corners]:
    """Draw a page; return it with the corners of each line's ink."""
    rng = np.random.default_rng([480, number])
    paper = rng.integers(130, 256, 3)
    ink = np.clip(paper - rng.integers(60, 130), 0, 255)  # some pages are hard to read
    if rng.random() < 0.3:  # noqa: PLR2004 - some are light on dark
        paper, ink = ink, paper
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in paper))
    canvas = ImageDraw.Draw(image)
    corners = []
    top = int(rng.integers(6, 60))
    while top < SIDE - 50:
        size = int(rng.integers(11, 34))
        font = ImageFont.load_default(size)
        words = rng.choice(_VOCABULARY.split(), int(rng.integers(1, 5)))
        text = " ".join([*words, str(rng.integers(10_000))])
        left = int(rng.integers(6, SIDE // 3))
        box = canvas.textbbox((left, top), text, font=font)
        if box[2] < SIDE - 6:
            canvas.text((left, top), text, font=font, fill=tuple(int(c) for c in ink))
            corners.append(box)
        top = int(box[3] + rng.integers(size // 2 + 4, size + 40))
    noise = rng.normal(0, rng.uniform(0, 14), (SIDE, SIDE, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return pixels, np.array(corners, dtype=np.float64).reshape(-1, 4)


def prepare(pixels: Pixels) -> NDArray[np.float32]:
    """Turn a page into what the network was trained on."""
    scaled = (pixels[:, :, ::-1].astype(np.float32) / 255 - _MEAN) / _SPREAD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis])


def decode(outputs: Mapping[str, NDArray[np.generic]]) -> Boxes:
    """Turn the network's map of how likely each pixel is text into boxes.

    Each connected spot is a line's core, shrunk by a share of its own size; it is grown back.
    """
    likely = next(iter(outputs.values()))[0, 0].astype(np.float64)
    corners, scores = [], []
    for left, top, right, bottom in spots(likely > INK):
        width, height = right - left, bottom - top
        if min(width, height) < LEAST_SIDE:
            continue
        grown = width * height * GROWTH / (2 * (width + height))
        corners.append((left - grown, top - grown, right + grown, bottom + grown))
        scores.append(likely[top:bottom, left:right].mean())
    return Boxes(np.array(corners).reshape(-1, 4), np.zeros(len(corners)), np.array(scores))


def spots(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """The left, top, right and bottom of each connected spot of a mask.

    Runs of set pixels are joined with the runs they touch in the row above.
    """
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    boxes: list[tuple[int, int, int, int]] = []
    joined: list[int] = []  # for each box itself, or the box it became part of

    def root(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    above: list[tuple[int, int, int]] = []
    for y, steps in enumerate(np.diff(padded, axis=1)):
        row = []
        starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            own = len(boxes)
            boxes.append((start, y, end, y + 1))
            joined.append(own)
            for other_start, other_end, number in above:
                if other_start <= end and start <= other_end:
                    other = root(number)
                    if other != own:
                        boxes[own] = _around(boxes[own], boxes[other])
                        joined[other] = own
            row.append((start, end, own))
        above = row
    return [box for number, box in enumerate(boxes) if joined[number] == number]


def _around(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )
