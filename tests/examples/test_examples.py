"""The examples: what they promise about shapes, labels and accuracy."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stoker_builder.data import DataSet, MemoryDataSet, calibration_of, load_data
from stoker_builder.errors import BuildCode
from stoker_builder.models.entrypoints import load_entry
from stoker_builder.models.source import ingest

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = f"{EXAMPLES / 'digits'}"
PHOTOS = f"{EXAMPLES / 'photos'}"
WEIGHTS = EXAMPLES / "digits" / "weights.safetensors"


@pytest.fixture
def digits() -> DataSet:
    return load_data(f"{DIGITS}/data.py:dataset")


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    monkeypatch.delenv("STOKER_PHOTOS", raising=False)
    return load_data(f"{PHOTOS}/data.py:dataset")


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Path:
    """Three photographs of one colour each, with labels."""
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class"])
        for label, size in ((7, (256, 256)), (1, (400, 300)), (999, (224, 500))):
            Image.new("RGB", size, (label % 256, 0, 127)).save(tmp_path / f"{label}.png")
            writer.writerow([f"{label}.png", label])
    return tmp_path


def test_the_digits_weights_stay_small() -> None:
    """What is committed is small enough to be committed."""
    assert WEIGHTS.stat().st_size < 600_000


def test_digits_are_labelled_and_shaped_as_the_model_takes_them(digits: DataSet) -> None:
    """At least 4,000 labelled samples are there to certify on."""
    assert digits.labelled
    assert len(digits.samples) >= 4100  # 100 of them may calibrate
    sample = digits.samples[0]
    assert sample.label in range(10)
    assert sample.inputs["x"].shape == (1, 1, 28, 28)
    assert sample.inputs["x"].dtype == np.float32
    assert 0 <= sample.inputs["x"].min() < sample.inputs["x"].max() <= 1


def test_digits_are_read_right(digits: DataSet, tmp_path: Path) -> None:
    """The committed weights read at least 98.5 % of digits they never saw, exported too."""
    from stoker_builder.kernels.sessions import Session  # noqa: PLC0415 - only here

    torch.set_num_threads(1)
    samples = [digits.samples[i] for i in range(len(digits.samples))]
    source = ingest(f"{DIGITS}/model.py:factory", WEIGHTS, samples[0].inputs, tmp_path)
    session = Session(source.path)

    answers = [next(iter(session.run(s.inputs).values())).argmax() for s in samples]

    assert np.mean([a == s.label for a, s in zip(answers, samples, strict=True)]) >= 0.985


def test_photos_without_labels_say_so(crops: DataSet) -> None:
    """Without labelled photographs the gate compares answers, and the note says it."""
    assert not crops.labelled
    assert "no labels" in crops.note
    assert "STOKER_PHOTOS" in crops.note
    assert all(crops.samples[i].label is None for i in (0, len(crops.samples) - 1))


def test_photos_calibrate_and_certify_on_different_photographs(crops: DataSet) -> None:
    """No crop of a certifying photograph calibrates."""
    calibration = calibration_of(crops)
    assert calibration is not None

    def photographs(samples: object) -> set[str]:
        return {key.partition("#")[0] for key, _, _ in samples.sources}  # type: ignore[attr-defined]

    assert len(calibration) == 100
    assert photographs(calibration).isdisjoint(photographs(crops.samples))


def test_crops_are_the_same_every_time(crops: DataSet) -> None:
    """A sample is decided by its name alone: two builds certify on the same crops."""
    again = load_data(f"{PHOTOS}/data.py:dataset")

    for index in (599, 3, 42):
        first, second = crops.samples[index], again.samples[index]
        assert first.key == second.key
        assert np.array_equal(first.inputs["x"], second.inputs["x"])
        assert first.inputs["x"].shape == (1, 3, 224, 224)


def test_labelled_photographs_are_used_when_there_are_some(
    labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with labels.csv is certified on its labels, all of them."""
    monkeypatch.setenv("STOKER_PHOTOS", str(labelled_folder))

    data = load_data(f"{PHOTOS}/data.py:dataset")

    assert data.labelled
    assert [data.samples[i].label for i in range(3)] == [7, 1, 999]
    assert "3 labelled photographs" in data.note


def test_pixels_are_scaled_as_the_network_learned_them(labelled_folder: Path) -> None:
    """(x/255 - 127/255) / (128/255), channels first, whatever the size of the photograph."""
    dataset = load_entry(f"{PHOTOS}/data.py:dataset", BuildCode.DATA_ENTRY)
    data = dataset(str(labelled_folder))
    assert isinstance(data, MemoryDataSet)

    for index, red in enumerate((7, 1, 999 % 256)):
        image = data.samples[index].inputs["x"]
        assert image.shape == (1, 3, 224, 224)
        expected = [(red - 127) / 128, -127 / 128, 0.0]
        assert np.allclose(image.mean(axis=(0, 2, 3)), expected, atol=1e-6)


def test_the_photos_model_knows_its_photographs(crops: DataSet) -> None:
    """The published weights are loaded: the packaged photographs' classes are recognised."""
    torch.set_num_threads(1)
    model = load_entry(f"{PHOTOS}/model.py:factory", BuildCode.FACTORY)()
    assert isinstance(model, torch.nn.Module)

    right = 0
    for index in range(0, len(crops.samples), 40):  # one crop of each photograph
        sample = crops.samples[index]
        with torch.inference_mode():
            answer = int(model(torch.from_numpy(sample.inputs["x"])).argmax())
        right += answer == int(sample.key.partition("#")[0].rpartition("_")[2])

    assert right >= 10
