"""Models that somebody made to do harm: each is refused with a code, and does none."""

import os
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.bounded import MAX_ONNX_BYTES, Bounds
from stoker_builder.models.source import Terms, ingest
from support.odd_models import (
    ONES,
    buried,
    constant,
    endless,
    model,
    nested,
    relu,
    saved,
    value,
    with_outside_weight,
)

SECRET = b"0123456789abcdef"  # as long as the weight


def refused(path: Path, bounds: Bounds | None = None) -> BuildError:
    """The error of taking in a model that has to be refused."""
    scratch = path.parent / "scratch"
    scratch.mkdir()
    with pytest.raises(BuildError) as caught:
        ingest(str(path), None, ONES, scratch, Terms(bounds=bounds or Bounds(seconds=60)))
    assert caught.value.detail
    assert caught.value.hint
    assert not psutil.Process().children()
    return caught.value


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/hostname",
        "inside/../../secret",
        "link",
        "linked/secret",
        "circle",
        "inside",
        "pipe",
        "missing",
        "",
        ".",
        "w.bin\0",
        "..\\secret",
        "x" * 5000,
    ],
)
def test_weights_outside_the_models_folder_are_never_read(tmp_path: Path, location: str) -> None:
    """No path, link or special file leads a model to bytes that are not its own."""
    (tmp_path / "secret").write_bytes(SECRET)
    folder = tmp_path / "model"
    path = with_outside_weight(folder, location=location)
    (folder / "inside").mkdir()
    (folder / "link").symlink_to("../secret")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")

    assert refused(path).code is BuildCode.EXTERNAL_DATA


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "1"},
        {"offset": "-1"},
        {"offset": "0x0"},
        {"offset": "9" * 30},
        {"offset": "²"},
        {"length": "15"},
        {"length": "17"},
        {"length": ""},
    ],
)
def test_weights_that_are_not_where_they_say_are_refused(
    tmp_path: Path, entries: dict[str, str]
) -> None:
    """Offsets and lengths stay within the file and are those of the tensor."""
    assert refused(with_outside_weight(tmp_path / "m", **entries)).code is BuildCode.EXTERNAL_DATA


def test_a_link_within_the_models_folder_is_followed(tmp_path: Path) -> None:
    """Folders that name their weights by link are common, and their own."""
    path = with_outside_weight(tmp_path / "m", location="named.bin")
    (tmp_path / "m" / "named.bin").symlink_to("w.bin")
    (tmp_path / "scratch").mkdir()

    assert ingest(str(path), None, ONES, tmp_path / "scratch").kind == "onnx"


@pytest.mark.parametrize("where", ["attribute", "branch", "function"])
def test_outside_data_is_found_wherever_a_tensor_can_be(tmp_path: Path, where: str) -> None:
    """Not only initializers name files."""
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1, 4], data_location="EXTERNAL")
    tensor.external_data.add(key="location", value="/etc/hostname")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    made = model([node])
    if where == "branch":
        branch = helper.make_graph([node], "b", [], [value("y")])
        choice = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
        made = model([choice], initializers=[constant("yes", np.True_, np.bool_)])
    if where == "function":
        own = helper.make_function("own", "F", ["a"], ["y"], [node], [helper.make_opsetid("", 17)])
        call = helper.make_node("F", ["x"], ["y"], domain="own")
        made = model([call], functions=[own], domains=["own"])

    assert refused(saved(made, tmp_path / "m.onnx")).code is BuildCode.EXTERNAL_DATA


def test_a_file_over_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    """Protobuf holds 2 GiB: the message says so, instead of a failure to parse."""
    path = tmp_path / "huge.onnx"
    with path.open("wb") as stream:
        stream.truncate(MAX_ONNX_BYTES + 1)  # a hole: nothing is written

    error = refused(path)

    assert error.code is BuildCode.MODEL_TOO_LARGE
    assert "2 GiB" in error.detail


def test_weights_over_two_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    """The same holds for what lies beside the model."""
    path = with_outside_weight(tmp_path / "m")
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].dims[:] = [2**20, 2**20]
    path.write_bytes(made.SerializeToString())
    with (tmp_path / "m" / "w.bin").open("wb") as stream:
        stream.truncate(2**42)

    assert refused(path).code is BuildCode.MODEL_TOO_LARGE


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe or a device is not waited for."""
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "device.onnx").symlink_to("/dev/zero")
    for name in ("folder.onnx", "pipe.onnx", "device.onnx", "a\0b.onnx"):
        with pytest.raises(BuildError) as caught:
            ingest(str(tmp_path / name), None, ONES, tmp_path)
        assert caught.value.code is BuildCode.MODEL_MISSING


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """Branches within branches end before a stack does, here and on devices."""
    deep = refused(saved(nested(20), tmp_path / "deep.onnx"))
    path = tmp_path / "deeper" / "deep.onnx"
    path.parent.mkdir()
    path.write_bytes(buried(5000))

    assert deep.code is BuildCode.UNSUPPORTED_OP
    assert refused(path).code is BuildCode.MODEL_FORMAT


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    """Looking through functions ends."""
    inner = helper.make_node("F", ["a"], ["b"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    own = helper.make_function("own", "F", ["a"], ["b"], [inner], opsets)
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    path = saved(model([call], functions=[own], domains=["own"]), tmp_path / "m.onnx")

    assert refused(path).code in {
        BuildCode.MODEL_FORMAT,
        BuildCode.UNSUPPORTED_OP,
        BuildCode.EXHAUSTED,
    }


def test_a_model_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """The first run happens where it can be ended."""
    error = refused(saved(endless(), tmp_path / "endless.onnx"), Bounds(seconds=5))

    assert error.code is BuildCode.EXHAUSTED
    assert "5 s" in error.detail


@pytest.mark.parametrize("how", ["fill", "expand", "dims"])
def test_a_small_file_that_unfolds_without_end_is_refused(tmp_path: Path, how: str) -> None:
    """A few bytes that stand for terabytes cost an error, not the machine's memory."""
    size = constant("size", [2**40], np.int64)
    if how == "fill":
        made = model([helper.make_node("ConstantOfShape", ["size"], ["y"])], initializers=[size])
    elif how == "expand":
        wide = [constant("size", [2**40, 4], np.int64)]
        made = model([helper.make_node("Expand", ["x", "size"], ["y"])], initializers=wide)
    else:
        claim = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 4], raw_data=b"")
        made = model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[claim])

    error = refused(saved(made, tmp_path / "bomb.onnx"), Bounds(30, memory_bytes=2**32))

    assert error.code in {
        BuildCode.EXHAUSTED,
        BuildCode.UNSUPPORTED_OP,
        BuildCode.MODEL_FORMAT,
        BuildCode.DATA_MISMATCH,
    }


@pytest.mark.parametrize(("what", "number"), [("opset", 99), ("ir", 99), ("opset", 0)])
def test_a_version_that_nobody_knows_is_refused(tmp_path: Path, what: str, number: int) -> None:
    """A newer file names what it needs and what is there."""
    made = model([relu()])
    if what == "ir":
        made.ir_version = number
    else:
        made.opset_import[0].version = number

    error = refused(saved(made, tmp_path / "m.onnx"))

    assert error.code in {BuildCode.UNSUPPORTED_OP, BuildCode.MODEL_FORMAT}
    assert number == 0 or "99" in error.detail


@pytest.mark.parametrize(("operator", "domain"), [("Mystery", ""), ("Relu", "com.example")])
def test_operators_that_no_device_has_are_refused(
    tmp_path: Path, operator: str, domain: str
) -> None:
    """Neither a new name nor a new domain runs anywhere, and subgraphs are looked into."""
    branch = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)], "b", [], [value("y")]
    )
    choice = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    yes = [constant("yes", np.True_, np.bool_)]
    path = saved(model([choice], initializers=yes, domains=[domain or "x"]), tmp_path / "m.onnx")

    error = refused(path)

    assert error.code in {BuildCode.UNSUPPORTED_OP, BuildCode.MODEL_FORMAT}
    assert operator in error.detail


@pytest.mark.parametrize("name", [b"\x01x", b"\x01y", b"\x04Relu", b"\x01n"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: bytes) -> None:
    """Bytes that are not UTF-8 do not get as far as a report or a path."""
    node = relu("x", "y")
    node.name = "n"
    made = model([node]).SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(made.replace(name, name[:-1] + b"\xff"))

    assert refused(path).code is BuildCode.MODEL_FORMAT


def test_tensors_that_can_not_be_served_are_refused(tmp_path: Path) -> None:
    """Text and sequences can not cross the serving protocol."""
    texts = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs=[value("x", [1], TensorProto.STRING)],
        outputs=[value("y", [1], TensorProto.STRING)],
    )

    assert refused(saved(texts, tmp_path / "m.onnx")).code in {
        BuildCode.DATA_MISMATCH,
        BuildCode.UNSUPPORTED_OP,
    }
