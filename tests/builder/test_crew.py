"""Quantising in several processes: the same files, and a failure is that of one file."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from stoker_builder.candidates import crew
from stoker_builder.candidates.crew import carry_out_all
from stoker_builder.candidates.orders import (
    Order,
    load_means,
    load_samples,
    save_means,
    save_samples,
)
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.split import Part, split
from support.tiny_build import MODELS

NAMES = ("int8-perchannel", "int8-inputs", "int8-dynamic", "int8-pairs")


@pytest.fixture
def part() -> Part:
    """Calibration samples of the tiny model."""
    return split(load_data(f"{MODELS}:dataset", {})).calibration


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores, on which no model is too small for a process."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(crew, "SMALL_BYTES", 0)


def orders_in(folder: Path, source: Path, part: Part) -> list[Order]:
    """One file of each kind."""
    folder.mkdir()
    quantiser = Quantiser(source, part, folder)
    return [quantiser.order(RECIPES[name]) for name in NAMES]


def test_processes_make_the_same_files(
    tmp_path: Path, tiny_onnx: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model is quantised in several processes, a small one here: nobody can tell."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    failures: list[BuildError | None] = []
    here = orders_in(tmp_path / "here", tiny_onnx, part)
    carry_out_all(here, lambda _order, failure: failures.append(failure))
    monkeypatch.setattr(crew, "SMALL_BYTES", 0)
    there = orders_in(tmp_path / "there", tiny_onnx, part)
    carry_out_all(there, lambda _order, failure: failures.append(failure))

    assert failures == [None] * 2 * len(NAMES)
    for one, other in zip(here, there, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_beside_the_model(
    tmp_path: Path, tiny_onnx: Path, part: Part, name: str
) -> None:
    """Others quantise it at the same time: what ONNX Runtime would put there is in nobody's way."""
    order = Quantiser(tiny_onnx, part, tmp_path).order(RECIPES[name])
    (order.model.parent / f"{order.model.stem}-inferred.onnx").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    failures: list[BuildError | None] = []

    carry_out_all([order], lambda _order, failure: failures.append(failure))

    assert {path.name for path in tmp_path.iterdir()} - before == {order.path.name}
    assert failures == [None]


@pytest.mark.usefixtures("two_processes")
def test_what_can_not_be_made_is_no_reason_to_end(
    tmp_path: Path, tiny_onnx: Path, part: Part
) -> None:
    """The failure is told with its code and reason, and the other files are made."""
    first, *others = orders_in(tmp_path / "orders", tiny_onnx, part)
    broken = tmp_path / "ranges.json"
    broken.write_text("{", encoding="utf-8")
    told: dict[str, BuildError | None] = {}

    carry_out_all(
        [replace(first, ranges=broken), *others],
        lambda order, failure: told.update({order.recipe.name: failure}),
    )

    failure = told.pop("int8-perchannel")
    assert failure is not None
    assert failure.code is BuildCode.QUANTISE
    assert "int8-perchannel" in failure.detail
    assert set(told.values()) == {None}


@pytest.mark.usefixtures("two_processes")
def test_a_process_that_dies_costs_one_file(tmp_path: Path, tiny_onnx: Path, part: Part) -> None:
    """Killed by the system, say: its file is told of, and another process makes the rest."""
    first, *others = orders_in(tmp_path / "orders", tiny_onnx, part)
    deadly = tmp_path / "pipe"
    os.mkfifo(deadly)  # whoever reads it waits until it is killed
    told: dict[str, BuildError | None] = {}
    killed = threading.Event()

    def done(order: Order, failure: BuildError | None) -> None:
        told[order.recipe.name] = failure
        if not killed.is_set() and len(told) == len(others):
            killed.set()
            for process in psutil.Process().children():
                if "quantise_child" in " ".join(process.cmdline()):
                    process.kill()

    carry_out_all([replace(first, means=deadly), *others], done)

    failure = told.pop("int8-perchannel")
    assert failure is not None
    assert "ended with -9" in failure.detail
    assert set(told.values()) == {None}
    assert all(order.path.exists() for order in others)


@pytest.mark.usefixtures("two_processes")
def test_what_a_process_said_before_it_ended_is_told(
    tmp_path: Path, tiny_onnx: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each file that it did not make."""
    orders = orders_in(tmp_path / "orders", tiny_onnx, part)
    folder = tmp_path / "sitecustomize"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os; os.write(2, b'no room\\n'); os._exit(3)")
    monkeypatch.syspath_prepend(str(folder))
    told: list[BuildError | None] = []

    carry_out_all(orders, lambda _order, failure: told.append(failure))

    assert len(told) == len(orders)
    assert all(one and one.detail.endswith("ended with 3 (no room)") for one in told)


def test_an_order_survives_its_journey(tmp_path: Path) -> None:
    """Everything in it is as it was on the other side."""
    for recipe in RECIPES.values():
        order = Order(recipe, tmp_path / "a", tmp_path / "b", samples=tmp_path / "c")
        assert Order.parse(order.encode()) == order


def test_samples_and_means_survive_their_files(tmp_path: Path) -> None:
    """Names of tensors may have anything in them."""
    samples = [{"images/x:0": np.full((1, 2), i, np.uint8)} for i in range(12)]
    means = {"/features/0": np.arange(3.0), "b:c": np.arange(2.0)}
    save_samples(samples, tmp_path / "samples.npz")
    save_means(means, tmp_path / "means.npz")

    for one, other in zip(load_samples(tmp_path / "samples.npz"), samples, strict=True):
        np.testing.assert_array_equal(one["images/x:0"], other["images/x:0"])
    for name, mean in load_means(tmp_path / "means.npz").items():
        np.testing.assert_array_equal(mean, means[name])
