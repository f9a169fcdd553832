"""The text example: nothing that certifies taught, and the head knows its sections."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from stoker_builder.data import MemoryDataSet, Sample, calibration_of, load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.entrypoints import load_entry

TEXT = Path(__file__).parents[2] / "examples" / "text"
DATA = f"{TEXT / 'data.py'}:dataset"

on_debian = pytest.mark.skipif(
    shutil.which("apt-cache") is None, reason="package descriptions are Debian's"
)


def module() -> ModuleType:
    """The example's data module."""
    import sys  # noqa: PLC0415

    return sys.modules[load_entry(DATA, BuildCode.DATA_ENTRY).__module__]


def rows_of(samples: object) -> list[Sample]:
    """All samples of a sequence."""
    return [samples[i] for i in range(len(samples))]  # type: ignore[index, arg-type]


@on_debian
def test_no_package_that_taught_certifies() -> None:
    """Teaching and certifying packages are told apart by the names of their sources alone."""
    known = module().descriptions()
    taught = {one.source for one in known if one.teaches}

    data = load_data(DATA, {"per_section": "200"})
    calibration = calibration_of(data)

    assert calibration is not None
    assert {row.key for row in rows_of(calibration)} <= taught
    certifying = {row.key for row in rows_of(data.samples)}
    assert certifying.isdisjoint(taught)
    assert len(certifying) >= 2000


@on_debian
def test_descriptions_are_tokens_of_one_length() -> None:
    """Every sample has the shape that the artifact is built for, and a label of its section."""
    rows = rows_of(load_data(DATA, {"per_section": "2"}).samples)

    assert {row.label for row in rows} == set(range(12))
    for row in rows:
        assert row.inputs["ids"].shape == row.inputs["mask"].shape == (1, 64)
        assert row.inputs["ids"].dtype == np.int64
        assert 3 <= row.inputs["mask"].sum() <= 64


@on_debian
def test_the_classifier_knows_its_sections() -> None:
    """Published weights and fitted head agree: far more than chance on unseen descriptions."""
    torch.set_num_threads(1)
    model = load_entry(f"{TEXT / 'model.py'}:factory", BuildCode.FACTORY)()
    assert isinstance(model, torch.nn.Module)
    rows = rows_of(load_data(DATA, {"per_section": "8"}).samples)
    ids, mask = (
        torch.from_numpy(np.concatenate([row.inputs[name] for row in rows]))
        for name in ("ids", "mask")
    )

    with torch.inference_mode():
        answers = model(ids, mask).argmax(1).tolist()

    assert np.mean([a == row.label for a, row in zip(answers, rows, strict=True)]) >= 0.6


def test_elsewhere_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Debian's package index a build ends with a sentence that says so."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(BuildError, match="Debian or Ubuntu") as raised:
        load_data(DATA)

    assert raised.value.code is BuildCode.DATA_ENTRY


def test_the_encoder_gives_unit_vectors_whatever_is_padded() -> None:
    """What is behind the mask changes nothing."""
    torch.set_num_threads(1)
    encoder = load_entry(f"{TEXT / 'model.py'}:encoder", BuildCode.FACTORY)()
    assert isinstance(encoder, torch.nn.Module)
    ids = torch.tensor([[101, 2535, 6208, 102, 0, 0], [101, 2535, 6208, 102, 999, 999]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2)

    with torch.inference_mode():
        one, other = encoder(ids, mask)

    assert torch.allclose(one, other, atol=1e-6)
    assert float(one.norm()) == pytest.approx(1.0, abs=1e-5)


def test_data_sets_are_what_a_build_takes() -> None:
    """The entry point returns the builder's own kind of data set."""
    if shutil.which("apt-cache"):
        assert isinstance(load_data(DATA, {"per_section": "1"}), MemoryDataSet)
