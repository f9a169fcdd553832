"""Models as people have them: old, free in shape, in two files, with functions, quantised."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.source import SourceModel, Terms, ingest
from support.builder_models import quantised_by_torchao
from support.odd_models import ONES, SHAPE, constant, model, relu, saved, value, with_outside_weight
from support.tiny_build import MODELS


def taken(path: Path, **terms: object) -> SourceModel:
    """The model, taken in for four ones."""
    scratch = path.parent / "scratch"
    scratch.mkdir()
    return ingest(str(path), None, ONES, scratch, Terms(**terms))  # type: ignore[arg-type]


def answer(source: SourceModel) -> list[float]:
    """What it answers to four ones."""
    return [float(entry) for entry in Session(source.path).run(ONES)["y"].reshape(-1)]


def test_an_old_opset_is_converted_where_the_answers_stay(tmp_path: Path) -> None:
    """INT8 per channel needs opset 13: what is older is brought there, and says so."""
    squeeze = helper.make_node("Unsqueeze", ["x"], ["wide"], axes=[0])
    back = helper.make_node("Squeeze", ["wide"], ["y"], axes=[0])
    path = saved(model([squeeze, back], opset=9), tmp_path / "old.onnx")

    source = taken(path)

    assert source.opset == 13
    assert "opset 9 converted to 13" in source.notes
    assert answer(source) == [1, 1, 1, 1]


def test_weights_that_are_inputs_too_become_constants(tmp_path: Path) -> None:
    """Files of IR version 3 list their weights as inputs; nobody sends those."""
    add = helper.make_node("Add", ["x", "w"], ["y"])
    old = model(
        [add],
        initializers=[constant("w", np.ones(SHAPE))],
        inputs=[value("x"), value("w")],
        opset=8,
    )
    old.ir_version = 3

    source = taken(saved(old, tmp_path / "old.onnx"))

    assert [spec.name for spec in source.io.inputs] == ["x"]
    assert answer(source) == [2, 2, 2, 2]


@pytest.mark.parametrize("shape", [["batch", 4], [0, "width"], [-1, -1]])
def test_free_dimensions_are_those_of_the_samples(tmp_path: Path, shape: list[int | str]) -> None:
    """However a dimension is left free, it gets the sample's size, in the outputs too."""
    free = model([relu()], inputs=[value("x", shape)], outputs=[value("y", shape)])

    source = taken(saved(free, tmp_path / "free.onnx"))

    assert source.io.inputs[0].shape == SHAPE
    assert source.io.outputs[0].shape == SHAPE
    assert any("free dimension 0 fixed at 1" in note for note in source.notes)


def test_a_shape_that_was_asked_for_has_to_be_that_of_the_samples(tmp_path: Path) -> None:
    """``--shape`` makes sure that a release is not built for another size by accident."""
    path = saved(model([relu()], inputs=[value("x", ["n", "m"])]), tmp_path / "free.onnx")

    with pytest.raises(BuildError, match=r"asks for x as \(2, 4\)") as caught:
        taken(path, shapes={"x": (2, 4)})

    assert caught.value.code is BuildCode.DATA_MISMATCH


@pytest.mark.parametrize(
    ("inputs", "wrong"),
    [
        ([value("x", [1, 5])], "dimension 1 of input x is 5, the samples have 4"),
        ([value("x", [1, 2, 2])], "3 dimensions"),
        ([value("x", SHAPE, TensorProto.DOUBLE)], "float64, the samples have float32"),
        ([value("x", ["n", "n"])], "'n' of another input"),
    ],
)
def test_samples_that_do_not_fit_are_told_how(
    tmp_path: Path, inputs: list[onnx.ValueInfoProto], wrong: str
) -> None:
    """The wrong dimension or type is named before anything runs."""
    with pytest.raises(BuildError, match=wrong) as caught:
        taken(saved(model([relu()], inputs=inputs), tmp_path / "other.onnx"))

    assert caught.value.code is BuildCode.DATA_MISMATCH
    assert caught.value.hint


@pytest.mark.parametrize(
    "odd",
    [
        [[1.0, 1.0, 1.0, 1.0]],
        np.array([["a", "b", "c", "d"]]),
        np.ones(SHAPE, dtype=object),
        np.ones(SHAPE, dtype=np.complex64),
        np.ones(SHAPE, dtype=">f4"),
    ],
    ids=["a list", "text", "objects", "complex", "big-endian"],
)
def test_samples_that_are_no_plain_numbers_are_refused(tmp_path: Path, odd: object) -> None:
    """Whatever a data set returns as an input, the answer is a code."""
    path = saved(model([relu()]), tmp_path / "m.onnx")

    with pytest.raises(BuildError, match="input x of the first sample") as caught:
        ingest(str(path), None, {"x": odd}, tmp_path)  # type: ignore[dict-item]

    assert caught.value.code is BuildCode.DATA_MISMATCH


def test_an_input_may_have_any_name(tmp_path: Path) -> None:
    """Names of inputs never become names of files or of arguments."""
    odd = ["file", "../x", "a b", "allow_pickle"]
    add = helper.make_node("Sum", odd, ["y"])
    path = saved(model([add], inputs=[value(name) for name in odd]), tmp_path / "m.onnx")
    (tmp_path / "scratch").mkdir()

    source = ingest(str(path), None, dict.fromkeys(odd, ONES["x"]), tmp_path / "scratch")

    assert [spec.name for spec in source.io.inputs] == odd


def test_weights_beside_the_model_are_put_into_it(tmp_path: Path) -> None:
    """What is signed is all there is, and its digest covers both files."""
    folder = tmp_path / "model"

    source = taken(with_outside_weight(folder))

    assert answer(source) == [2, 2, 2, 2]
    held = onnx.load(source.path, load_external_data=False).graph.initializer[0]
    assert held.data_location == TensorProto.DEFAULT
    (folder / "w.bin").write_bytes(np.zeros(SHAPE, dtype=np.float32).tobytes())
    (folder / "again").mkdir()
    assert ingest(str(folder / "model.onnx"), None, ONES, folder / "again").digest != source.digest


def test_a_large_model_as_pytorch_exports_it_is_taken(tmp_path: Path, tiny_onnx: Path) -> None:
    """The pair of ``model.onnx`` and ``model.onnx.data`` that exporters write is one model."""
    pair = tmp_path / "model.onnx"
    onnx.save(
        onnx.load(tiny_onnx),
        pair,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    (tmp_path / "scratch").mkdir()

    source = ingest(
        str(pair), None, {"x": np.ones((1, 3, 16, 16), np.float32)}, tmp_path / "scratch"
    )

    assert source.path.read_bytes() == tiny_onnx.read_bytes()


def test_local_functions_are_looked_through(tmp_path: Path) -> None:
    """A function of the model's own domain becomes the nodes that it stands for."""
    double = helper.make_function(
        "own",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    call = helper.make_node("Double", ["x"], ["y"], domain="own")

    source = taken(
        saved(model([call], functions=[double], domains=["own"]), tmp_path / "function.onnx")
    )

    assert answer(source) == [2, 2, 2, 2]
    assert [node.op_type for node in onnx.load(source.path).graph.node] == ["Add"]


def test_a_quantised_model_needs_the_one_it_was_made_from(tmp_path: Path, tiny_onnx: Path) -> None:
    """Nobody can say what it lost without the model it lost it from."""
    quantised = _quantised(tiny_onnx, tmp_path)

    with pytest.raises(BuildError, match="quantised already") as caught:
        _ingest(quantised, tmp_path)

    assert caught.value.code is BuildCode.REFERENCE_MISSING
    assert "--reference" in caught.value.hint


def test_a_quantised_model_is_a_candidate_of_its_reference(tmp_path: Path, tiny_onnx: Path) -> None:
    """With its reference it is taken in like any candidate that the builder makes."""
    source = _ingest(_quantised(tiny_onnx, tmp_path), tmp_path, reference=str(tiny_onnx))

    assert source.prequantised is not None
    assert source.prequantised.scheme == "dynamic"
    assert source.prequantised.path != source.path
    assert source.path.read_bytes() == tiny_onnx.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_torchao_quantised_is_recognised(tmp_path: Path) -> None:
    """A PT2E export of torchao is a QDQ graph, and its factory can be its reference."""
    path = tmp_path / "torchao.onnx"
    example = torch.ones(1, 3, 16, 16)
    torch.onnx.export(
        quantised_by_torchao(),
        (example,),
        path,
        dynamo=True,
        verbose=False,
        input_names=["x"],
        output_names=["output"],
    )

    source = _ingest(path, tmp_path, reference=f"{MODELS}:factory")

    assert source.prequantised is not None
    assert source.prequantised.scheme == "qdq"
    assert source.torch is not None


@pytest.mark.parametrize("reference", ["other", "quantised"])
def test_a_reference_that_is_none_is_refused(
    tmp_path: Path, tiny_onnx: Path, reference: str
) -> None:
    """A reference has the same inputs and outputs, and is not quantised itself."""
    quantised = _quantised(tiny_onnx, tmp_path)
    wider = onnx.load(tiny_onnx)
    wider.graph.output[0].name = "scores"
    wider.graph.node[-1].output[0] = "scores"
    other = saved(wider, tmp_path / "other.onnx")
    given = {"other": str(other), "quantised": str(quantised)}[reference]

    with pytest.raises(BuildError) as caught:
        _ingest(quantised, tmp_path, reference=given)

    codes = {"other": BuildCode.REFERENCE_DIFFERS, "quantised": BuildCode.BAD_REQUEST}
    assert caught.value.code is codes[reference]


def _quantised(path: Path, folder: Path) -> Path:
    quantised = folder / "quantised.onnx"
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
    return quantised


def _ingest(path: Path, folder: Path, reference: str | None = None) -> SourceModel:
    scratch = folder / "scratch"
    scratch.mkdir()
    example = {"x": np.ones((1, 3, 16, 16), np.float32)}
    return ingest(str(path), None, example, scratch, Terms(reference=reference))
