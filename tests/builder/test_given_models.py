"""Builds of models that came quantised, and beside PyTorch's own routes: to the end."""

from pathlib import Path

import pytest

from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import GIVEN, RECIPES
from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Terms
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.split import split
from support.tiny_build import MODELS, request_for


class Notes(Silence):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_that_came_quantised_is_judged_like_any_other(
    tmp_path: Path, tiny_onnx: Path
) -> None:
    """It has its row, with an audit and a verdict beside those of the builder's own recipes."""
    parts = split(load_data(f"{MODELS}:dataset"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    given = Quantiser(tiny_onnx, parts.calibration, folder).make(RECIPES["int8-perchannel"])
    terms = Terms(reference=str(tiny_onnx))

    result = build(request_for(tmp_path / "release", model=str(given), terms=terms), Silence())

    rows = [row for row in result.rows if row.candidate.recipe == GIVEN]
    assert {row.target for row in rows} == {"x86-64-v3", "x86-64-vnni"}
    assert all(row.fusion and row.fusion.quantised_mac_share > 0.9 for row in rows)
    assert any(row.accuracy for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pytorchs_own_routes_are_rows_where_they_run(tmp_path: Path) -> None:
    """A route that was asked for is timed with the others; one that can not run is a note."""
    notes = Notes()
    routes = ("eager", "torch-int8-dynamic", "torch-int8-static-fx")
    request = request_for(
        tmp_path / "release",
        model=f"{MODELS}:loops_over_its_shape",
        torch_routes=routes,
        precision="fp32",
    )

    result = build(request, notes)

    timed = {baseline.name for baseline in result.report.baselines}
    assert {"eager", "torch-int8-dynamic"} <= timed
    assert not timed & {"eager-tuned", "torch-int8-static-fx"}
    assert any("FX graph mode could not run the model" in note for note in notes.notes)


def test_a_route_that_pytorch_does_not_have_is_refused(tmp_path: Path) -> None:
    """The error lists those that there are."""
    with pytest.raises(BuildError) as caught:
        build(request_for(tmp_path / "release", torch_routes=("warp",)), Silence())

    assert caught.value.code is BuildCode.BAD_REQUEST
    assert "torch-int8-static" in caught.value.hint
