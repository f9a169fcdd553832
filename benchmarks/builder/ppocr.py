"""PP-OCRv4's text detector as a PyTorch module: the weights and the arithmetic of its ONNX file.

It is published as ONNX. So that PyTorch's own routes can be rows of the comparison, the graph
is carried out operator by operator, with modules where PyTorch has one, so that its compiler
and its quantiser find what they look for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from stoker_builder.errors import BuildCode
from stoker_builder.models.entrypoints import load_entry

_FINDER: Final = Path(__file__).parents[2] / "examples" / "detector" / "model.py"

Attributes = Mapping[str, Any]
Weights = Mapping[str, torch.Tensor]

_PLAIN: Final[Mapping[str, Callable[..., torch.Tensor]]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Div": torch.div,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
}


def source() -> Path:
    """The ONNX file."""
    found = load_entry(f"{_FINDER}:packaged", BuildCode.FACTORY)("detector")
    assert isinstance(found, Path)  # noqa: S101 - it is ours
    return found


def factory() -> nn.Module:
    """Return the network; ``[1, 3, 480, 480]`` in, a map of the same size out."""
    return torch.fx.GraphModule(*_traced(onnx.load(source()))).eval()


def _traced(model: onnx.ModelProto) -> tuple[nn.Module, torch.fx.Graph]:
    weights = {t.name: _tensor(t) for t in model.graph.initializer}
    root, graph = nn.Module(), torch.fx.Graph()
    values: dict[str, Any] = {
        value.name: graph.placeholder("x")
        for value in model.graph.input
        if value.name not in weights
    }
    for index, node in enumerate(model.graph.node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            weights[node.output[0]] = _tensor(attributes["value"])
            continue
        module = _module(node, attributes, weights)
        if _becomes_bias(node, root, values, weights):
            values[node.output[0]] = values[node.input[0]]
        elif module is not None:
            name = f"{node.op_type.lower()}_{index}"
            root.add_module(name, module)
            values[node.output[0]] = graph.call_module(name, (values[node.input[0]],))
        else:
            values[node.output[0]] = _call(graph, root, node, attributes, values, weights)
    graph.output(values[model.graph.output[0].name])
    return root, graph


def _becomes_bias(
    node: onnx.NodeProto, root: nn.Module, values: Mapping[str, Any], weights: Weights
) -> bool:
    """Whether an addition was taken in by the transposed convolution before it.

    The file keeps the two apart, which is nothing that PyTorch's compiler expects: it fails.
    """
    before: Any = values.get(node.input[0])
    if (
        node.op_type != "Add"
        or node.input[1] not in weights
        or getattr(before, "op", "") != "call_module"
    ):
        return False
    module = root.get_submodule(before.target)
    if not isinstance(module, nn.ConvTranspose2d) or module.bias is not None:
        return False
    module.bias = nn.Parameter(weights[node.input[1]].reshape(-1))
    return True


def _module(node: onnx.NodeProto, attributes: Attributes, weights: Weights) -> nn.Module | None:
    """The module for an operator that has one."""
    inputs = [weights.get(name) for name in node.input[1:]]
    makers: Mapping[str, Callable[[], nn.Module]] = {
        "Conv": lambda: _convolution(attributes, inputs),
        "ConvTranspose": lambda: _transposed(attributes, inputs),
        "BatchNormalization": lambda: _normalisation(attributes, inputs),
        "Clip": lambda: _clipping(inputs),
        "HardSigmoid": lambda: _HardSigmoid(
            attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        ),
        "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1),
        "Resize": lambda: _upsampling(inputs),
    }
    maker = makers.get(node.op_type)
    return maker() if maker is not None else None


def _call(  # noqa: PLR0913, PLR0917  one operator and what it may refer to
    graph: torch.fx.Graph,
    root: nn.Module,
    node: onnx.NodeProto,
    attributes: Attributes,
    values: Mapping[str, Any],
    weights: Weights,
) -> torch.fx.Node:
    """An operator that is a function."""

    def argument(name: str) -> Any:  # noqa: ANN401  a node, a number or a parameter
        if name in values:
            return values[name]
        tensor = weights[name]
        if tensor.numel() == 1:
            return float(tensor)
        attribute = "weight_" + "".join(c if c.isalnum() else "_" for c in name)
        root.register_buffer(attribute, tensor)
        return graph.get_attr(attribute)

    arguments = [argument(name) for name in node.input if name]
    if node.op_type == "Concat":
        return graph.call_function(torch.cat, (arguments, attributes["axis"]))
    return graph.call_function(_PLAIN[node.op_type], tuple(arguments))


def _convolution(attributes: Attributes, inputs: list[torch.Tensor | None]) -> nn.Module:
    weight, bias = inputs[0], inputs[1] if len(inputs) > 1 else None
    assert weight is not None  # noqa: S101 - a convolution has one
    groups = attributes.get("group", 1)
    module = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]  # two of them
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=tuple(attributes.get("pads", (0, 0, 0, 0))[:2]),
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=groups,
        bias=bias is not None,
    )
    return _filled(module, weight, bias)


def _transposed(attributes: Attributes, inputs: list[torch.Tensor | None]) -> nn.Module:
    weight, bias = inputs[0], inputs[1] if len(inputs) > 1 else None
    assert weight is not None  # noqa: S101 - a convolution has one
    module = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * attributes.get("group", 1),
        tuple(weight.shape[2:]),  # type: ignore[arg-type]  # two of them
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=tuple(attributes.get("pads", (0, 0, 0, 0))[:2]),
        groups=attributes.get("group", 1),
        bias=bias is not None,
    )
    return _filled(module, weight, bias)


def _clipping(inputs: list[torch.Tensor | None]) -> nn.Module:
    low, high = (float(value) for value in inputs if value is not None)
    return nn.Hardtanh(low, high)


def _upsampling(inputs: list[torch.Tensor | None]) -> nn.Module:
    _, _, *scales = next(v for v in inputs if v is not None and v.numel()).tolist()
    return nn.Upsample(scale_factor=tuple(scales), mode="nearest")


def _normalisation(attributes: Attributes, inputs: list[torch.Tensor | None]) -> nn.Module:
    scale, shift, mean, variance = (value for value in inputs if value is not None)
    module = nn.BatchNorm2d(len(scale), eps=attributes.get("epsilon", 1e-5))
    module.load_state_dict(
        {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance},
        strict=False,
    )
    return module


def _filled(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    module.load_state_dict(state)
    return module


class _HardSigmoid(nn.Module):
    """ONNX's, whose slope is a parameter."""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope = slope
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(x * self.slope + self.offset, 0, 1)


def _tensor(proto: onnx.TensorProto) -> torch.Tensor:
    return torch.from_numpy(numpy_helper.to_array(proto).copy())
