"""PyTorch's own routes: each runs in a process of its own, answers, and times itself."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.measure import ChildTimed
from stoker_builder.latency.torch_process import TorchChild
from stoker_builder.latency.torch_routes import DEFAULT_ROUTES, ROUTES, TUNED_ALLOCATOR, TorchRoute
from support.tiny_build import MODELS

FACTORY = f"{MODELS}:factory"
SAMPLES = load_data(f"{MODELS}:dataset", {"samples": "40"}).samples


@pytest.fixture(scope="module")
def eager_answers() -> list[np.ndarray]:
    """What PyTorch eager answers to the last samples."""
    with TorchChild(FACTORY, SAMPLES[0].inputs) as eager:
        return [eager.run(SAMPLES[index].inputs)["output"] for index in range(30, 40)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_every_route_answers_and_times_itself(
    route: TorchRoute, eager_answers: list[np.ndarray]
) -> None:
    """A route answers as eager does, as near as its arithmetic is, and tells its own time."""
    calibration = (SAMPLES[index].inputs for index in range(30))

    with TorchChild(FACTORY, SAMPLES[0].inputs, route=route, calibration=calibration) as child:
        answers = [child.run(SAMPLES[index].inputs)["output"] for index in range(30, 40)]
        took_ns = child.time_once_ns()
        assert isinstance(child, ChildTimed)

    difference = max(np.abs(a - b).max() for a, b in zip(answers, eager_answers, strict=True))
    exact = route.method in {"eager", "compile"}
    assert exact == (difference < 1e-3), "FP32 where it should be INT8 or BF16, or the reverse"
    assert [a.argmax() for a in answers] == [a.argmax() for a in eager_answers]
    assert took_ns > 0
    assert not psutil.Process().children()


def test_the_routes_of_every_build_are_the_quick_ones() -> None:
    """Eager runs twice, once with an allocator that keeps its pages; nothing is compiled."""
    stock, tuned = (ROUTES[name] for name in DEFAULT_ROUTES)

    assert (stock.method, tuned.method) == ("eager", "eager")
    assert (stock.allocator, tuned.allocator) == ({}, TUNED_ALLOCATOR)


def test_a_route_that_can_not_run_the_model_says_what_pytorch_said(tmp_path: Path) -> None:
    """A model that can not be exported has no static row, and the comparison goes on."""
    file = tmp_path / "branches.py"
    file.write_text(
        "import torch\n"
        "class Branches(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 if x.sum() > 0 else x\n"
        "def factory():\n"
        "    return Branches()\n"
    )
    inputs = {"x": np.ones((1, 4), dtype=np.float32)}
    route = ROUTES["torch-int8-static-fx"]

    with (
        pytest.raises(BuildError, match="control flow") as caught,
        TorchChild(f"{file}:factory", inputs, route=route, calibration=[inputs]),
    ):
        pass

    assert caught.value.code is BuildCode.MEASURE
    assert route.title in caught.value.detail
    assert not psutil.Process().children()


def test_a_model_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """An inference without end costs the time that was allowed, not the build."""
    file = tmp_path / "endless.py"
    file.write_text(
        "import itertools, torch\n"
        "class Endless(torch.nn.Module):\n"
        "    runs = itertools.count()\n"
        "    def forward(self, x):\n"
        "        while next(self.runs):\n"
        "            pass\n"
        "        return x\n"
        "def factory():\n"
        "    return Endless()\n"
    )

    inputs = {"x": np.ones(4, dtype=np.float32)}
    with TorchChild(f"{file}:factory", inputs, run_timeout_s=0.5) as child:
        with pytest.raises(BuildError, match=r"no answer within 0\.5 s") as caught:
            child.time_once_ns()
        pid = child.pid

    assert caught.value.code is BuildCode.MEASURE
    assert not psutil.pid_exists(pid)
