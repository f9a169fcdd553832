"""The fusion audit: what did the graph optimiser really make of a quantised graph?

A quantised file is only faster where the optimiser replaced "dequantise, multiply, quantise"
by an integer kernel, and it says nothing where it did not. So the optimised graph is written
out, and the multiply-accumulates that stayed in floating point are counted.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx

from stoker_builder.kernels.sessions import Session
from stoker_builder.models.source import Inputs
from stoker_contract.manifest import Fusion
from stoker_contract.target import Arch

MIN_QUANTISED_SHARE: Final = 0.9
# a recipe for some operators may leave the others, but not nearly all there is
MIN_SHARE_AT_ALL: Final = 0.1
_MAX_NAMES: Final = 32  # a manifest has 64 KiB; the report has them all

# operator -> position of its weight, and whether it computes in integers
_WEIGHT_POSITION: Final[Mapping[str, tuple[int, bool]]] = {
    "Conv": (1, False),
    "FusedConv": (1, False),
    "ConvTranspose": (1, False),
    "Gemm": (1, False),
    "FusedGemm": (1, False),
    "MatMul": (1, False),
    "FusedMatMul": (1, False),
    "QLinearConv": (3, True),
    "QGemm": (3, True),
    "QLinearMatMul": (3, True),
    "ConvInteger": (1, True),
    "MatMulInteger": (1, True),
    "MatMulIntegerToFloat": (1, True),
    "DynamicQuantizeMatMul": (1, True),
}
# what runtimes call an operator after they have fused something into it
_KINDS: Final[Mapping[str, str]] = {
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "Convolution": "Conv",
    "Deconvolution": "ConvTranspose",
    "FullyConnected": "MatMul",
}
_GEMMS: Final = frozenset({"Gemm", "FusedGemm", "QGemm"})
_KERNEL_EVENT: Final = "_kernel_time"
_CONVOLUTIONS: Final = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "QLinearConv", "ConvInteger"}
)


@dataclass(frozen=True, slots=True)
class FloatNode:
    """A node that multiplies in floating point.

    Attributes:
        channels: that a convolution makes; 0 for what is none.
    """

    name: str
    macs: int
    channels: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """What was counted in one optimised graph.

    Attributes:
        uncounted: nodes whose shapes are not known; they count as floating point.
        left_macs: what a recipe left in floating point on purpose.
    """

    quantised_macs: int
    float_nodes: tuple[FloatNode, ...]
    uncounted: tuple[str, ...]
    transposes: int
    left_macs: int = 0

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Audit":
        """Read what ``dataclasses.asdict`` wrote as JSON."""
        floats = tuple(FloatNode(**node) for node in told["float_nodes"])
        rest = tuple(told["uncounted"])
        return cls(told["quantised_macs"], floats, rest, told["transposes"])

    @property
    def float_macs(self) -> int:
        """Multiply-accumulates that stayed in floating point."""
        return sum(node.macs for node in self.float_nodes)

    @property
    def share(self) -> float:
        """Quantised share of all multiply-accumulates, 0 when there are none."""
        total = self.quantised_macs + self.float_macs + self.left_macs
        return self.quantised_macs / total if total else 0.0

    @property
    def passed(self) -> bool:
        """Whether the file is what it claims to be, and that is worth a look."""
        meant = self.quantised_macs + self.float_macs
        kept_its_word = self.quantised_macs >= MIN_QUANTISED_SHARE * meant > 0
        return kept_its_word and self.share >= MIN_SHARE_AT_ALL and not self.uncounted

    def among(self, operators: Collection[str], min_channels: int = 1) -> "Audit":
        """The same for a recipe that quantises some operators only, and leaves the others.

        Args:
            operators: that are quantised.
            min_channels: convolutions that make fewer are left, too.
        """
        kept = tuple(
            node
            for node in self.float_nodes
            if _is_one_of(node.name, operators) and not 0 < node.channels < min_channels
        )
        uncounted = tuple(name for name in self.uncounted if _is_one_of(name, operators))
        left = self.float_macs - sum(node.macs for node in kept)
        return replace(self, float_nodes=kept, uncounted=uncounted, left_macs=left)

    def share_of(self, operators: Collection[str]) -> float:
        """How much of it, at most, a recipe for some operators can turn into integers."""
        if self.uncounted:
            return 1.0
        meant = sum(n.macs for n in self.float_nodes if _is_one_of(n.name, operators))
        return meant / self.float_macs if self.float_macs else 0.0

    def beside(self, other: "Audit") -> "Audit":
        """The same for a file that leaves more in floating point than another, on purpose."""
        known = {node.name for node in other.float_nodes}
        kept = tuple(node for node in self.float_nodes if node.name in known)
        left = self.float_macs - sum(node.macs for node in kept)
        return replace(self, float_nodes=kept, left_macs=left)

    def fusion(self, before: "Audit | None" = None) -> Fusion:
        """As the manifest writes it; ``before`` is the audit of the FP32 file."""
        names = [node.name for node in self.float_nodes] + list(self.uncounted)
        return Fusion(
            quantised_mac_share=self.share,
            float_ops=tuple(name[:256] for name in names[:_MAX_NAMES]),
            transposes_added=max(0, self.transposes - (before.transposes if before else 0)),
        )


def too_little(share: float) -> str:
    """Why a file is not looked at any further."""
    return f"what it quantises is only {share:.1%} of all multiplications"


def _is_one_of(name: str, operators: Collection[str]) -> bool:
    kind = _KINDS.get(name.split(" ", 1)[0], name.split(" ", 1)[0])
    return kind in operators


def audit(path: Path, inputs: Inputs, scratch: Path, arch: Arch | None = None) -> Audit:
    """Optimise a file as the device will, run one sample, and count.

    Args:
        path: the file.
        inputs: one sample.
        scratch: a folder for the optimised graph and the profile.
        arch: of the device; that of this machine when absent.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when it can not be loaded; ``DATA_MISMATCH``, when
            it does not take the sample.
    """
    optimised = scratch / f"{path.stem}.optimised.onnx"
    session = Session(path, optimised_path=optimised, profile_prefix=scratch / path.stem, arch=arch)
    session.run(inputs)
    profile = session.end_profile()
    return count(onnx.load(optimised), kernels_of(profile.read_bytes()))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The shapes one kernel was run with."""

    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


def kernels_of(profile: bytes) -> dict[str, Kernel]:
    """Read a profile of ONNX Runtime: node name to the shapes that it ran with."""
    kernels = {}
    for event in json.loads(profile):
        name = event.get("name", "")
        if not name.endswith(_KERNEL_EVENT):
            continue
        arguments = event["args"]
        outputs = _listed(arguments.get("output_type_shape", []))
        if outputs:
            inputs = _listed(arguments.get("input_type_shape", []))
            kernels[name.removesuffix(_KERNEL_EVENT)] = Kernel(inputs, outputs[0])
    return kernels


def _listed(shapes: list[dict[str, list[int]]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for entry in shapes for shape in entry.values())


def count(model: onnx.ModelProto, kernels: Mapping[str, Kernel]) -> Audit:
    """Count the multiply-accumulates of an optimised graph."""
    held = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    quantised = 0
    floating: list[FloatNode] = []
    uncounted: list[str] = []
    for node in model.graph.node:
        position, is_integer = _WEIGHT_POSITION.get(node.op_type, (None, False))
        if position is None:
            continue
        kernel = kernels.get(node.name)
        macs = _macs(node.op_type, kernel, _weight(node, position, kernel, held))
        name = f"{node.op_type} {node.name or node.output[0]}"
        if macs is None:
            uncounted.append(name)
        elif is_integer:
            quantised += macs
        else:
            floating.append(FloatNode(name, macs, _channels(node.op_type, kernel)))
    floating.sort(key=lambda node: -node.macs)
    transposes = sum(node.op_type == "Transpose" for node in model.graph.node)
    return Audit(quantised, tuple(floating), tuple(uncounted), transposes)


def _weight(
    node: onnx.NodeProto,
    position: int,
    kernel: Kernel | None,
    held: Mapping[str, tuple[int, ...]],
) -> tuple[int, ...] | None:
    # a constant weight may be repacked and then is missing from the profile; one that is
    # computed is missing from the file
    name = node.input[position]
    if name in held:
        return held[name]
    if kernel is not None and len(kernel.inputs) > position:
        return kernel.inputs[position]
    return None


def _channels(op_type: str, kernel: Kernel | None) -> int:
    if kernel is None or op_type not in _CONVOLUTIONS or len(kernel.output) < 2:  # noqa: PLR2004
        return 0
    return kernel.output[1]


def _macs(op_type: str, kernel: Kernel | None, weight: tuple[int, ...] | None) -> int | None:
    if kernel is None or not weight:
        return None
    outputs = math.prod(kernel.output)
    if op_type == "ConvTranspose":
        return math.prod(kernel.inputs[0]) * math.prod(weight[1:])
    if op_type in _CONVOLUTIONS:
        return outputs * math.prod(weight[1:])
    if op_type in _GEMMS:
        return outputs * (math.prod(weight) // max(kernel.output[-1], 1))
    return outputs * (weight[-2] if len(weight) > 1 else weight[0])
