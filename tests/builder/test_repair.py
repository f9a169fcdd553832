"""What is fast and lost too much: its worst nodes go back to floating point."""

from pathlib import Path

import onnx
import pytest

from stoker_builder.candidates.damage import Damages
from stoker_builder.candidates.preparing import prepared
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.candidates.reverting import Reverter
from stoker_builder.data import load_data
from stoker_builder.kernels.isa import VNNI, host_isa
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.source import Inputs
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.rows import Mark
from stoker_builder.split import Split, split
from support.tiny_build import MODELS, request_for


@pytest.fixture(scope="module")
def parts() -> Split:
    """Samples for the tiny models."""
    return split(load_data(f"{MODELS}:dataset"))


@pytest.fixture
def reverter(wild_activations_onnx: Path, parts: Split, tmp_path: Path) -> Reverter:
    """A file whose activations eight bits can not hold."""
    quantiser = Quantiser(wild_activations_onnx, parts.calibration, tmp_path)
    made = quantiser.make(RECIPES["int8-perchannel"])
    return Reverter(made, prepared(wild_activations_onnx, tmp_path))


def distance(path: Path, reference: Path, parts: Split) -> float:
    """How far the answers of two files are from each other, at most."""
    one, other = Session(path), Session(reference)
    answers = [(one.run(s)["output"], other.run(s)["output"]) for s in inputs_of(parts)]
    return max(float(abs(a - b).max()) for a, b in answers)  # type: ignore[operator]  # floats


def inputs_of(parts: Split) -> list[Inputs]:
    """A few samples."""
    return [parts.selection[i].inputs for i in range(8)]


def test_a_file_without_quantised_nodes_is_the_source_again(
    reverter: Reverter, wild_activations_onnx: Path, parts: Split, tmp_path: Path
) -> None:
    """Reverting all takes everything back: weights, pairs and answers."""
    path = tmp_path / "reverted.onnx"

    reverter.save(path, reverter.nodes)

    model = onnx.load(path)
    assert not any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer)
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert distance(path, wild_activations_onnx, parts) < 1e-3


def test_the_node_that_breaks_the_model_is_found_first(
    reverter: Reverter, wild_activations_onnx: Path, parts: Split, tmp_path: Path
) -> None:
    """Ranked by what each does alone; reverting the worst helps most."""
    ranked = Damages(reverter, wild_activations_onnx, inputs_of(parts), tmp_path).ranked()

    assert [one.name for one in ranked] != list(reverter.nodes)
    assert {one.name for one in ranked} == set(reverter.nodes)
    assert ranked[0].damage > 3 * ranked[-1].damage
    half = len(ranked) // 2
    worst, rest = tmp_path / "worst.onnx", tmp_path / "rest.onnx"
    reverter.save(worst, [one.name for one in ranked[:half]])
    reverter.save(rest, [one.name for one in ranked[-half:]])
    left = [distance(path, wild_activations_onnx, parts) for path in (worst, rest)]
    assert left[0] < left[1]


@pytest.mark.skipif(not VNNI & host_isa(), reason="this processor has no VNNI")
def test_a_repaired_file_is_a_candidate_like_any_other(
    tmp_path: Path, wild_activations_onnx: Path
) -> None:
    """It is audited, timed and certified; the report says what each node did."""
    request = request_for(
        tmp_path / "release", model=str(wild_activations_onnx), targets=("x86-64-vnni",)
    )
    result = build(request, Silence())

    broken = next(row for row in result.rows if row.name == "int8-perchannel")
    assert broken.mark is Mark.FAIL
    assert broken.damages
    names = {row.name for row in result.rows}
    reported = {c.candidate: c for c in result.report.candidates}
    assert reported["int8-perchannel"].sensitivity
    if "int8-perchannel-repaired" in names:
        repaired = reported["int8-perchannel-repaired"]
        assert repaired.accuracy is not None
        assert repaired.accuracy.loss <= repaired.accuracy.budget
