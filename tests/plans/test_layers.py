"""The layers of a plan: what an engine has, and what a graph asks for where nobody can look."""

import json
from pathlib import Path

import onnx
import pytest

from stoker_builder.report.document import Candidate
from stoker_builder.report.words import cells
from stoker_builder.rows import Mark
from stoker_builder.tensorrt.asked import asked_for
from stoker_builder.tensorrt.compile_child import compile_job
from stoker_builder.tensorrt.layers import PlanLayers, layers_of
from stoker_builder.tensorrt.settings import CompileJob, CompileSettings
from stoker_contract.manifest import Fusion
from stoker_contract.target import Runtime
from support.recorded_tensorrt import recorded_tensorrt

INT8, HALF = "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP16"
# 3x3 conv 3->16 and 16->16 at 32x32, and a linear one 16->10
FIRST, SECOND, LAST = 32 * 32 * 16 * 27, 32 * 32 * 16 * 144, 160


def layer(name: str, kind: str, taken: str, parameter: str = "") -> dict[str, object]:
    """A layer as the inspector writes it."""
    inputs = [{"Name": "x", "Location": "Device", "Format/Datatype": taken}]
    return {"Name": name, "LayerType": kind, "ParameterType": parameter, "Inputs": inputs}


ENGINE = json.dumps(
    {
        "Layers": [
            layer("Reformatting CopyNode", "Reformat", "Row major linear FP32", "Reformat"),
            layer("Conv_0 + Relu_1", "CaskConvolution", INT8, "Convolution"),
            layer("Conv_2", "CaskConvolution", HALF, "Convolution"),
            layer("PWN(Add_3)", "PointWiseV2", HALF, "PointWise"),
            layer("{ForeignNode[MatMul_4...Softmax_9]}", "Myelin", HALF),
            layer("MatMul_10", "CaskGemmMatrixMultiply", INT8, "MatrixMultiply"),
        ],
        "Bindings": ["x", "scores"],
    }
)


def test_an_engine_tells_what_its_layers_became() -> None:
    """Of three that multiply two do so in INT8, and the other is named."""
    found = layers_of(ENGINE)

    assert found == PlanLayers(
        layers=6, multiplying=3, int8=2, float_layers=("Conv_2",), reformats=1, opaque=1
    )
    assert found.words == "6 layers, 2 of 3 int8, 1 reformats"


def test_what_went_to_an_accelerator_is_in_the_messages() -> None:
    """The compiler lists it once, a line for each subgraph."""
    said = (
        "a warning",
        "[DlaLayer] {ForeignNode[Conv_0...Relu_4]}",
        "[DlaLayer] {ForeignNode[Gemm]}",
    )
    found = layers_of(ENGINE, said)

    assert found is not None
    assert found.on_dla == 2
    assert found.words.endswith("2 on DLA")


@pytest.mark.parametrize(
    "said", ["", "no JSON", "{}", "[]", "null", '{"Layers": null}', '{"Layers": ["only", "names"]}']
)
def test_an_engine_that_tells_nothing_has_no_layers(said: str) -> None:
    """Which is not the same as none that multiplies."""
    assert layers_of(said) is None


def test_what_a_graph_asks_for_is_counted(graphs: dict[str, Path]) -> None:
    """Multiplications of two dequantised tensors; in the float graph there is none."""
    asked = asked_for(onnx.load(graphs["int8"]))
    plain = asked_for(onnx.load(graphs["fp16"]))

    assert (asked.share, asked.quantised_macs) == (1.0, FIRST + SECOND + LAST)
    assert not asked.uncounted
    assert plain.share == 0.0
    assert plain.float_macs == FIRST + SECOND + LAST


def test_a_board_looks_at_what_it_compiled(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """The compiler's process asks the inspector, and what it says is no warning."""
    library = recorded_tensorrt("10.3.0")
    library.world.inspected = ENGINE
    library.world.says = ("[DlaLayer] {ForeignNode[Conv_0...Relu_4]}",)
    settings = CompileSettings(runtime=Runtime.TENSORRT, dla_core=0)
    job = CompileJob(settings=settings, onnx=str(graphs["int8"]), plan=str(tmp_path / "x.plan"))

    report = compile_job(job, library)

    assert report.inspected is not None
    assert (report.inspected.int8, report.inspected.on_dla) == (2, 1)
    assert report.warnings == ()
    assert library.world.host_code == [False]


def test_the_table_says_what_was_seen_and_what_was_only_asked_for() -> None:
    """``≤`` where no GPU was there to look at the engine."""
    fusion = Fusion(quantised_mac_share=0.98, basis="graph")
    row = Candidate(
        target="rtx-sm89", candidate="int8", precision="int8", verdict=Mark.PASS, fusion=fusion
    )
    seen = row.model_copy(update={"layers": layers_of(ENGINE)})

    assert (cells(row)["int8"], cells(row)["layers"]) == ("≤98%", "")
    assert cells(seen)["layers"] == "6 layers, 2 of 3 int8, 1 reformats"
    kernels = row.model_copy(update={"fusion": Fusion(quantised_mac_share=0.98)})
    assert cells(kernels)["int8"] == "98%"
