"""The detector example: pages whose boxes are known, and models that find and read them."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stoker_builder.data import DataSet, Sample, load_data
from stoker_builder.errors import BuildCode
from stoker_builder.kernels.sessions import Session
from stoker_builder.metrics import Boxes, BoxPrecision, SequenceMatch
from stoker_builder.models.entrypoints import load_entry

DETECTOR = Path(__file__).parents[2] / "examples" / "detector"
PAGES = f"{DETECTOR / 'pages.py'}:dataset"
LINES = f"{DETECTOR / 'lines.py'}:dataset"


def pages() -> ModuleType:
    """The example's module of pages."""
    return sys.modules[load_entry(PAGES, BuildCode.DATA_ENTRY).__module__]


def packaged(name: str) -> Path:
    """Where one of the models is."""
    path = load_entry(f"{DETECTOR / 'model.py'}:packaged", BuildCode.FACTORY)(name)
    assert isinstance(path, Path)
    return path


def metric_of(data: DataSet) -> object:
    """The data set's own metric."""
    return getattr(data, "metric", None)


def answered(path: Path, data: DataSet, count: int) -> list[tuple[Sample, dict[str, np.ndarray]]]:
    """What a model answers to the first samples."""
    session = Session(path)
    rows = [data.samples[index] for index in range(count)]
    return [(row, session.run(row.inputs)) for row in rows]


def test_a_page_is_the_same_every_time() -> None:
    """A page is decided by its number: two builds certify on the same pages."""
    first, second = pages().draw(17), pages().draw(17)

    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], pages().draw(18)[0])


def test_the_boxes_of_a_page_hold_all_of_its_ink() -> None:
    """Outside of the boxes there is nothing but paper and noise."""
    for number in range(5):
        pixels, corners = pages().draw(number)
        inside = np.zeros(pixels.shape[:2], dtype=np.bool_)
        for left, top, right, bottom in corners.astype(int):
            inside[top : bottom + 1, left : right + 1] = True
        paper = np.median(pixels[~inside], axis=0)

        assert len(corners) >= 1
        assert np.abs(pixels[~inside] - paper).mean() < 25
        assert np.abs(pixels[inside] - paper).max() > 40


def test_spots_are_found_whatever_their_form() -> None:
    """A spot that closes late, a ring and a lone pixel are three spots."""
    mask = np.zeros((12, 20), dtype=np.bool_)
    mask[1:6, [1, 6]] = True
    mask[6, 1:7] = True  # two arms that meet below
    mask[1:5, 10:14] = True
    mask[2:4, 11:13] = False
    mask[10, 18] = True

    assert sorted(pages().spots(mask)) == [(1, 1, 7, 7), (10, 1, 14, 5), (18, 10, 19, 11)]


def test_a_perfect_map_decodes_to_its_boxes() -> None:
    """Cores of lines are grown back to about the lines; noise is left out."""
    likely = np.zeros((1, 1, 480, 480), dtype=np.float32)
    likely[0, 0, 100:112, 50:250] = 0.9
    likely[0, 0, 300, 300] = 1.0

    boxes = pages().decode({"map": likely})

    assert isinstance(boxes, Boxes)
    assert len(boxes) == 1
    assert np.allclose(boxes.corners[0], (40.9, 90.9, 259.1, 121.1), atol=0.2)
    assert boxes.scores is not None
    assert boxes.scores[0] == pytest.approx(0.9, abs=1e-6)


def test_the_detector_finds_the_lines() -> None:
    """The published model finds most of what was drawn."""
    data = load_data(PAGES, {"pages": "40"})
    metric = metric_of(data)
    assert isinstance(metric, BoxPrecision)

    rows = [
        metric.score(outputs, outputs, sample)
        for sample, outputs in answered(packaged("detector"), data, 12)
    ]

    assert metric.aggregate(np.concatenate(rows)) >= 0.75


def test_the_recogniser_reads_the_lines() -> None:
    """The published model reads what was drawn, by the dictionary in its own file."""
    path = packaged("recogniser")
    data = load_data(LINES, {"dictionary": str(path), "lines": "60"})
    metric = metric_of(data)
    assert isinstance(metric, SequenceMatch)

    right = [metric.score(outputs, outputs, sample) for sample, outputs in answered(path, data, 20)]

    assert sum(right) >= 18
