"""The ways to make an INT8 candidate, as data. Which target tries which is in ``targets/``."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from stoker_contract.target import Runtime

FP32: Final = "fp32"
GIVEN: Final = "int8-given"  # not a recipe of ours: the model came quantised

PRODUCTS: Final = ("MatMul", "Gemm")
MULTIPLYING: Final = ("Conv", "ConvTranspose", *PRODUCTS)

Ranges = Literal["minmax", "percentile", "entropy"]
Overflow = Literal["ignored", "seven-bits", "pairs"]
CorrectsBias = Literal["no", "of weights", "measured"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Quantisation of weights, signed and symmetric, and of activations.

    Attributes:
        activations: unsigned or signed; x86 multiplies unsigned by signed.
        per_channel: one scale per output channel, else one per tensor.
        ranges: how the range of an activation follows from the calibration samples.
        dynamic: activations get their scale while the model runs; nothing is calibrated.
        operators: only these are quantised; None quantises everything that can be.
        overflow: what is done for processors that add pairs of products into sixteen bits:
            ``seven-bits`` halves the range of all weights but those of the first
            convolution, which stays in FP32, and of depthwise ones; ``pairs`` trims only the
            neighbours that are too large together, see :mod:`candidates.overflow`.
        inputs_only: only what goes into a multiplication with a weight is quantised, and biases
            stay in floating point, so that what follows a multiplication fuses into it.
        min_channels: convolutions with fewer output channels stay in floating point: kernels make
            sixteen or more at once, and one costs as much.
        symmetric: activations are quantised around zero.
        signed_inputs: what goes into the model is quantised around zero and signed, whatever the
            other activations are: a first convolution has no zero point to take off again.
        as_exported: the graph is quantised as it came, without the optimisations of ONNX Runtime,
            whose own operators are opaque to another runtime.
        corrects_bias: biases take back what rounding ``of weights`` does to the means, see
            :mod:`candidates.bias`, or what all of it was ``measured`` to do, see
            :mod:`candidates.measured_bias`; ``no`` where a recipe stands for what others do.
        runtimes: for which runtimes it is worth making; None for all.
        summary: for the report.
    """

    name: str
    summary: str
    activations: Literal["u8", "s8"] = "u8"
    per_channel: bool = True
    ranges: Ranges = "minmax"
    dynamic: bool = False
    operators: tuple[str, ...] | None = None
    overflow: Overflow = "ignored"
    inputs_only: bool = False
    min_channels: int = 1
    symmetric: bool = False
    signed_inputs: bool = False
    as_exported: bool = False
    corrects_bias: CorrectsBias = "of weights"
    runtimes: tuple[Runtime, ...] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is here to be shipped, and not only to be compared with."""
        return self.corrects_bias != "no"


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe("int8-perchannel", "U8S8, weights per channel"),
            Recipe(
                "int8-signed-inputs",
                "U8S8, what goes into the model S8 around zero",
                signed_inputs=True,
                # ONNX Runtime has no fast kernel for it
                runtimes=(Runtime.OPENVINO,),
            ),
            Recipe("int8-percentile", "U8S8, outliers of activations clipped", ranges="percentile"),
            Recipe("int8-entropy", "U8S8, activations clipped by entropy", ranges="entropy"),
            Recipe(
                "int8-pertensor",
                "U8S8, weights per tensor, ONNX Runtime's default",
                per_channel=False,
                corrects_bias="no",
            ),
            Recipe(
                "int8-s8s8",
                "S8S8, as ONNX Runtime takes it by default",
                activations="s8",
                corrects_bias="no",
            ),
            Recipe(
                "int8-explicit",
                "S8S8 around zero, per channel, as TensorRT takes it",
                activations="s8",
                operators=MULTIPLYING,
                inputs_only=True,
                symmetric=True,
            ),
            Recipe(
                "int8-pairs",
                "U8S8, no pair of weights can overflow without VNNI",
                overflow="pairs",
            ),
            Recipe(
                "int8-mixed",
                "stem FP32, 7-bit weights, depthwise 8-bit: no overflow without VNNI",
                overflow="seven-bits",
            ),
            Recipe(
                "int8-dynamic",
                "matrix products only, activations scaled while it runs",
                dynamic=True,
                operators=PRODUCTS,
                # OpenVINO computes these in floating point
                runtimes=(Runtime.ONNXRUNTIME,),
            ),
            Recipe(
                "int8-dynamic-pairs",
                "matrix products only, scaled while it runs, no pair can overflow without VNNI",
                dynamic=True,
                operators=PRODUCTS,
                overflow="pairs",
                runtimes=(Runtime.ONNXRUNTIME,),
            ),
            Recipe(
                "int8-inputs",
                "U8S8, only what goes into multiplications, what follows fuses",
                operators=MULTIPLYING,
                inputs_only=True,
                min_channels=4,
                corrects_bias="measured",
                # ONNX Runtime fuses only what is quantised on both sides
                runtimes=(Runtime.OPENVINO,),
            ),
            Recipe(
                "int8-inputs-signed",
                "S8S8 around zero, only what goes into multiplications",
                activations="s8",
                operators=MULTIPLYING,
                inputs_only=True,
                min_channels=4,
                symmetric=True,
                corrects_bias="measured",
                # tiles take signed numbers as they are; VNNI gains nothing
                runtimes=(Runtime.OPENVINO,),
            ),
            Recipe(
                "int8-inputs-pairs",
                "what goes into multiplications, no pair of weights can overflow without VNNI",
                operators=MULTIPLYING,
                inputs_only=True,
                min_channels=4,
                corrects_bias="measured",
                overflow="pairs",
                runtimes=(Runtime.OPENVINO,),
            ),
            Recipe(
                "int8-linear",
                "matrix products only, S8S8 around zero, activations calibrated",
                activations="s8",
                operators=PRODUCTS,
                inputs_only=True,
                symmetric=True,
                as_exported=True,
                # ONNX Runtime does not fuse them: slower than dynamic
                runtimes=(Runtime.OPENVINO,),
            ),
        )
    }
)
