"""The fusion audit: what stayed in floating point is found and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stoker_builder.candidates.audit import Audit, FloatNode, Kernel, audit, count, kernels_of
from stoker_builder.candidates.openvino_audit import audit_openvino
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import MULTIPLYING, PRODUCTS, RECIPES
from stoker_builder.data import load_data
from stoker_builder.kernels.isa import VNNI, host_isa
from stoker_builder.split import split
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Arch, Runtime
from support.builder_models import SHAPE
from support.tiny_build import MODELS

EXAMPLE = {"x": np.zeros(SHAPE, dtype=np.float32)}
# 3x3 conv 3->16 at 16x16, 3x3 conv 16->32 at 8x8, 1x1 conv 32->32 at 8x8, linear 128->4
MACS = 16 * 16 * 16 * 27 + 8 * 8 * 32 * 144 + 8 * 8 * 32 * 32 + 128 * 4


@pytest.fixture(scope="module")
def quantised(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model by each recipe."""
    folder = tmp_path_factory.mktemp("quantised")
    parts = split(load_data(f"{MODELS}:dataset", {"samples": "50"}))
    quantiser = Quantiser(tiny_onnx, parts.calibration, folder)
    return {name: quantiser.make(recipe) for name, recipe in RECIPES.items()}


def test_quantising_twice_gives_the_same_bytes(
    tiny_onnx: Path, quantised: dict[str, Path], tmp_path: Path
) -> None:
    """A release can be made again, and its digest checked."""
    parts = split(load_data(f"{MODELS}:dataset", {"samples": "50"}))
    quantiser = Quantiser(tiny_onnx, parts.calibration, tmp_path)

    for name in ("int8-perchannel", "int8-mixed"):
        assert quantiser.make(RECIPES[name]).read_bytes() == quantised[name].read_bytes()


def test_every_multiplication_is_counted(tiny_onnx: Path, tmp_path: Path) -> None:
    """The FP32 file has all its multiply-accumulates in floating point, and no other."""
    found = audit(tiny_onnx, EXAMPLE, tmp_path)

    assert found.float_macs == MACS
    assert found.quantised_macs == 0
    assert not found.uncounted


def test_it_is_known_before_how_little_a_recipe_would_quantise(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    """Matrix products are next to nothing in a convolution net: nobody has to try."""
    found = audit(tiny_onnx, EXAMPLE, tmp_path)

    assert found.share_of(PRODUCTS) == 128 * 4 / MACS
    assert found.share_of(MULTIPLYING) == 1.0
    assert replace(found, uncounted=("MatMul x",)).share_of(PRODUCTS) == 1.0, "who knows"


def test_a_fused_file_has_none_left(quantised: dict[str, Path], tmp_path: Path) -> None:
    """Quantisation changes where the work is done, not how much there is."""
    found = audit(quantised["int8-perchannel"], EXAMPLE, tmp_path)

    assert found.quantised_macs == MACS
    assert found.share == 1.0
    assert found.passed


def test_signed_activations_stay_signed_on_arm(quantised: dict[str, Path], tmp_path: Path) -> None:
    """x86 shifts them first, ARM takes them as they are: each is audited as it runs there."""
    zeros = {}
    for arch in Arch:
        scratch = tmp_path / arch
        scratch.mkdir()
        assert audit(quantised["int8-s8s8"], EXAMPLE, scratch, arch).share == 1.0
        graph = onnx.load(scratch / "int8-s8s8.optimised.onnx").graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        first = next(node for node in graph.node if node.op_type == "QLinearConv")
        zeros[arch] = types[first.input[2]]

    assert zeros == {Arch.X86_64: TensorProto.UINT8, Arch.AARCH64: TensorProto.INT8}


def test_a_stem_left_in_float_is_named(quantised: dict[str, Path], tmp_path: Path) -> None:
    """The overflow-safe recipe leaves the first convolution in FP32; the audit says so."""
    found = audit(quantised["int8-mixed"], EXAMPLE, tmp_path)

    assert [node.macs for node in found.float_nodes] == [16 * 16 * 16 * 27]
    assert not found.passed
    assert found.fusion().float_ops[0].startswith("Conv ")


def test_a_file_that_was_not_fused_fails(quantised: dict[str, Path], tmp_path: Path) -> None:
    """Without its last quantiser a convolution stays in float, silently; the audit flags it."""
    model = onnx.load(quantised["int8-perchannel"])
    scales = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in scales:
            # an operator between dequantiser and convolution is all it takes
            node.output[0] = f"{node.output[0]}_moved"
    moved = [n for n in model.graph.node if n.output[0].endswith("_moved")]
    for node in moved:
        name = node.output[0]
        model.graph.node.append(
            onnx.helper.make_node("Identity" if "weight" in name else "Neg", [name], [name + "2"])
        )
    for node in model.graph.node:
        if node.op_type == "Conv":
            for position, name in enumerate(node.input):
                if f"{name}_moved" in {m.output[0] for m in moved}:
                    node.input[position] = f"{name}_moved2"
    nodes = _in_order(model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "unfused.onnx"
    onnx.save(model, path)

    found = audit(path, EXAMPLE, tmp_path)

    assert found.share < 0.1
    assert not found.passed
    assert len(found.float_nodes) == 3


def test_a_node_without_shapes_counts_against_the_file() -> None:
    """What can not be counted is not taken for quantised."""
    node = onnx.helper.make_node("QLinearConv", list("abcdefgh"), ["y"], name="mystery")
    graph = onnx.helper.make_graph([node], "g", [], [])

    found = count(onnx.helper.make_model(graph), {"other": Kernel((), (1,))})

    assert found.uncounted == ("QLinearConv mystery",)
    assert not found.passed


def test_profiles_are_read_by_node() -> None:
    """Only kernel events count, each with the shapes it was given."""
    profile = b"""[{"name": "session_run", "args": {}},
      {"name": "a_kernel_time", "args": {"input_type_shape": [{"float": [1, 2]}],
       "output_type_shape": [{"float": [1, 3]}]}}]"""

    assert kernels_of(profile) == {"a": Kernel(((1, 2),), (1, 3))}


def _in_order(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        ready = [node for node in waiting if set(node.input) - {""} <= known]
        for node in ready:
            known |= set(node.output)
            ordered.append(node)
            waiting.remove(node)
        assert ready, "the graph has a cycle"
    return ordered


def test_a_narrow_convolution_is_left_by_a_recipe_that_says_so() -> None:
    """However much of the model it is."""
    whole = Audit(90, (FloatNode("FusedConv narrow", 300, channels=1),), (), 0)

    assert whole.among(("Conv",), min_channels=4).left_macs == 300
    assert whole.among(("Conv",), min_channels=1).left_macs == 0


def test_what_a_recipe_leaves_alone_is_no_fault_of_its_file() -> None:
    """A recipe for matrix products is judged by those; the share says how much that is."""
    products = FloatNode("MatMul small", 10)
    convolutions = FloatNode("FusedConv large", 400)

    whole = Audit(90, (convolutions, products), (), 0)
    meant = whole.among(("MatMul",))

    assert not whole.passed
    assert meant.passed
    assert meant.share == whole.share == 0.18
    # next to nothing is not worth certifying, however well it was done
    assert not Audit(9, (convolutions,), (), 0).among(("MatMul",)).passed
    assert not Audit(0, (convolutions,), (), 0).among(("MatMul",)).passed


@pytest.mark.skipif(not VNNI & host_isa(), reason="this processor has no VNNI")
def test_products_in_openvino_count_whatever_their_activations_are(tmp_path: Path) -> None:
    """Its kernels for signed activations are named in small letters, those for unsigned are not."""
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["f"]),
            helper.make_node("MatMul", ["d", "f"], ["y"], name="product"),
        ],
        "signed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [
            numpy_helper.from_array(np.array(0.05, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
            numpy_helper.from_array((weights * 30).clip(-127, 127).astype(np.int8), "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "signed.onnx"
    onnx.save(model, path)

    found = audit_openvino(path, SessionOptions(runtime=Runtime.OPENVINO))

    assert found.share == 1.0
