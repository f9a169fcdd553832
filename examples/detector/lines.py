"""Single lines of text, for the recogniser. What each says is known to the letter."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.metrics import SequenceMatch

HEIGHT: Final = 48
WIDTH: Final = 320
LINES: Final = 1100
CALIBRATION: Final = 100
SELECTION: Final = 100
PREPROCESSING: Final = f"BGR, height {HEIGHT}, padded to {WIDTH} wide; (x/255 - 0.5) / 0.5; NCHW"
_VOCABULARY: Final = (
    "Pump Valve Pressure Bearing Motor Spindle Coolant Torque Sensor Gearbox Shaft Filter"
    " Flange Gasket Relay Fuse Breaker Cabinet Terminal Cable Serial Batch Revision Inspect"
    " Replace Tighten Monthly Weekly Operator Warning Caution Maximum Minimum Voltage Current"
)


@dataclass(frozen=True, slots=True)
class Lines:
    """A sequence of samples, each drawn when it is asked for.

    Attributes:
        places: of each character among the network's classes.
    """

    numbers: range
    places: dict[str, int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Sample:
        number = self.numbers[index]
        pixels, text = draw(number)
        label = [self.places[sign] for sign in text]
        return Sample(inputs={"x": pixels}, label=label, key=f"line-{number}")


def dataset(dictionary: str, lines: str = str(LINES)) -> MemoryDataSet:
    """Return so many lines, the first of which calibrate and choose.

    Args:
        dictionary: the recogniser's ONNX file; it holds the list of its characters.
        lines: how many.
    """
    places = read_dictionary(dictionary)
    apart = min(CALIBRATION + SELECTION, int(lines) // 4)
    calibration = apart * CALIBRATION // (CALIBRATION + SELECTION)
    certify = range(apart, int(lines))
    return MemoryDataSet(
        samples=Lines(certify, places),
        name="lines",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"all of it right, on {len(certify)} drawn lines",
        calibration=Lines(range(calibration), places),
        selection=Lines(range(calibration, apart), places),
        metric=SequenceMatch(blank=0),
    )


def read_dictionary(path: str) -> dict[str, int]:
    """The class of each character, from the metadata of the recogniser's file."""
    import onnx  # noqa: PLC0415  a second, which only this needs

    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    # class 0 stands for nothing, and the space comes after the last one
    signs = [*entries["character"].split("\n"), " "]
    return {sign: place for place, sign in enumerate(signs, start=1)}


def draw(number: int) -> tuple[NDArray[np.float32], str]:
    """Draw a line as the network takes it; return it with its text."""
    rng = np.random.default_rng([48, number])
    text = f"{rng.choice(_VOCABULARY.split())}-{rng.integers(10 ** rng.integers(2, 6))}"
    paper = rng.integers(120, 256, 3)
    ink = np.clip(paper - rng.integers(60, 160), 0, 255)
    if rng.random() < 0.3:  # noqa: PLR2004 - some are light on dark
        paper, ink = ink, paper
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(c) for c in paper))
    font = ImageFont.load_default(int(rng.integers(22, 31)))
    canvas = ImageDraw.Draw(image)
    canvas.text((6, HEIGHT // 2), text, font=font, fill=tuple(int(c) for c in ink), anchor="lm")
    end = int(canvas.textlength(text, font=font)) + 14
    noise = rng.normal(0, rng.uniform(0, 12), (HEIGHT, WIDTH, 1))
    scaled = (np.clip(np.asarray(image) + noise, 0, 255) / 127.5 - 1)[:, :, ::-1]
    scaled[:, end:] = 0  # a shorter line is padded with nothing
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis], dtype=np.float32), text
