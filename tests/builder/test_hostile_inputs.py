"""What users get wrong: each mistake has a code and a hint, and nothing is written."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.onnx_source import settle
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from support.builder_models import SHAPE, factory
from support.tiny_build import MODELS, exported, request_for


def refused(output: Path, **changes: object) -> BuildError:
    """The error of a build that has to fail, after checking that it left nothing behind."""
    with pytest.raises(BuildError) as caught:
        build(request_for(output, **changes), Silence())
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}*"))
    assert caught.value.detail
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("nowhere.onnx", BuildCode.MODEL_MISSING),
        ("nowhere", BuildCode.MODEL_MISSING),
        ("weights.pt", BuildCode.UNSAFE_FORMAT),
        ("no_such_module:factory", BuildCode.FACTORY),
        (f"{MODELS}:no_such_function", BuildCode.FACTORY),
        (f"{MODELS}:raises", BuildCode.FACTORY),
        (f"{MODELS}:not_a_module", BuildCode.FACTORY),
        ("nowhere.py:factory", BuildCode.FACTORY),
    ],
)
def test_a_model_that_is_none_is_refused(tmp_path: Path, model: str, code: BuildCode) -> None:
    """Missing files, formats that run code, and factories that fail have codes."""
    assert refused(tmp_path / "release", model=model).code is code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (f"{MODELS}:empty", BuildCode.DATA_EMPTY),
        (f"{MODELS}:raises", BuildCode.DATA_ENTRY),
        (f"{MODELS}:not_a_data_set", BuildCode.DATA_ENTRY),
        ("no_such_module:data", BuildCode.DATA_ENTRY),
        ("no_function", BuildCode.DATA_ENTRY),
        (f"{MODELS}:label_out_of_range", BuildCode.LABEL_RANGE),
        (f"{MODELS}:overlapping", BuildCode.CALIBRATION_OVERLAP),
        (f"{MODELS}:misnamed", BuildCode.DATA_MISMATCH),
    ],
)
def test_data_that_can_not_certify_is_refused(
    tmp_path: Path, tiny_onnx: Path, data: str, code: BuildCode
) -> None:
    """Data sets that are empty, fail, are mislabelled or mark their own homework have codes."""
    error = refused(tmp_path / "release", model=str(tiny_onnx), data=data, precision="fp32")

    assert error.code is code


def test_data_with_too_few_samples_is_refused(tmp_path: Path, tiny_onnx: Path) -> None:
    """Four samples can not be divided into two parts."""
    error = refused(tmp_path / "release", model=str(tiny_onnx), data_arguments={"samples": "4"})

    assert error.code is BuildCode.DATA_EMPTY


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "No Such Name"},
        {"version": "../1"},
        {"counter": 0},
        {"budget": 0.0},
        {"targets": ()},
        {"targets": ("x86-64-v3", "x86-64-v3")},
    ],
)
def test_a_request_that_can_not_become_a_release_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """Names, versions and counters are checked before anything slow."""
    assert refused(tmp_path / "release", **changes).code is BuildCode.BAD_REQUEST


def test_a_target_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """The error lists the targets that there are."""
    error = refused(tmp_path / "release", targets=("z80",))

    assert error.code is BuildCode.UNKNOWN_TARGET
    assert "x86-64-vnni" in error.hint


def test_bytes_that_are_not_onnx_are_refused(tmp_path: Path) -> None:
    """Whatever the bytes are, the answer is one code."""
    for number, data in enumerate((b"", b"not a model", bytes(range(256)) * 8)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(data)
        assert refused(tmp_path / "release", model=str(path)).code is BuildCode.MODEL_FORMAT


def test_an_operator_that_no_device_has_is_refused(tmp_path: Path) -> None:
    """Custom operator libraries are not loaded on devices."""
    path = tmp_path / "custom.onnx"
    onnx.save(_model("Mystery", "com.example"), path)

    error = refused(tmp_path / "release", model=str(path))

    assert error.code is BuildCode.UNSUPPORTED_OP
    assert "com.example.Mystery" in error.detail


def test_nan_answers_are_refused(tmp_path: Path) -> None:
    """A model that answers NaN to a certification sample never becomes a release."""
    error = refused(
        tmp_path / "release",
        model=f"{MODELS}:divides_by_zero",
        data=f"{MODELS}:zero_among",
        precision="fp32",
    )

    assert error.code is BuildCode.NOT_FINITE
    assert "the zero one" in error.detail


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Weights have to fit the factory's model exactly."""
    state = {name: tensor[:1].clone() for name, tensor in factory().state_dict().items()}
    save_file(state, tmp_path / "other.safetensors")

    error = refused(tmp_path / "release", weights=tmp_path / "other.safetensors")

    assert error.code is BuildCode.WEIGHTS


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_weights_that_are_none_are_refused(tmp_path: Path, content: bytes | None) -> None:
    """A missing or broken weights file has a code."""
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)

    assert refused(tmp_path / "release", weights=path).code is BuildCode.WEIGHTS


def test_bytes_that_rotted_never_leak_another_error(tmp_path: Path, tiny_onnx: Path) -> None:
    """Whatever happened to the file, it is taken in or refused with a code."""
    rng = random.Random(7)  # noqa: S311  damage, not a secret
    sound = tiny_onnx.read_bytes()
    refusals = 0
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 8)):
            # the graph is at both ends of the file, the weights are between
            at = rng.choice((rng.randrange(4000), len(data) - 1 - rng.randrange(6000)))
            data[at] = rng.randrange(256)
        path = tmp_path / "rotten.onnx"
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        try:
            settle(path, {"x": np.zeros(SHAPE, dtype=np.float32)}, tmp_path / "settled.onnx")
        except BuildError:
            refusals += 1

    assert refusals > 20


def test_an_export_says_nothing_of_this_machine(tiny_onnx: Path, tmp_path: Path) -> None:
    """Two exports are the same bytes, and hold no stack traces or paths."""
    again = exported("factory", tmp_path).read_bytes()

    assert again == tiny_onnx.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in again
    assert b"stack_trace" not in again


def test_a_free_batch_is_fixed_and_noted(tmp_path: Path, tiny_onnx: Path) -> None:
    """A model with a free batch dimension is built for the batch of the samples."""
    model = onnx.load(tiny_onnx)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "free.onnx"
    onnx.save(model, path)

    result = build(request_for(tmp_path / "release", model=str(path), precision="fp32"), Silence())

    assert result.manifest.artifacts[0].io.inputs[0].shape == (1, 3, 16, 16)
    assert "free dimension 0 fixed at 1" in str(result.report.source)


def _model(operator: str, domain: str) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones(1, dtype=np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])
    node = helper.make_node(operator, ["x", "w"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets)
