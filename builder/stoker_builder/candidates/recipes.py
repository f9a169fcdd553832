"""The ways to make an INT8 candidate, as data. Which target tries which is in ``targets/``."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

FP32: Final = "fp32"
GIVEN: Final = "int8-given"  # not a recipe of ours: the model came quantised


@dataclass(frozen=True, slots=True)
class Recipe:
    """Static QDQ quantisation of weights and activations, weights signed and symmetric.

    Attributes:
        activations: unsigned or signed; x86 multiplies unsigned by signed.
        per_channel: one scale per output channel, else one per tensor.
        overflow_safe: the first convolution stays in FP32 and the weights of the others,
            depthwise ones excepted, have seven bits, so that pairs of products fit the
            sixteen bits that AVX2 adds them in.
        explicit: as TensorRT takes it: activations around zero, biases in floating point, and
            only what goes into a multiplication is quantised, so that what follows one fuses.
        summary: for the report.
    """

    name: str
    activations: Literal["u8", "s8"]
    per_channel: bool
    summary: str
    overflow_safe: bool = False
    explicit: bool = False


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe("int8-perchannel", "u8", per_channel=True, summary="U8S8, weights per channel"),
            Recipe("int8-pertensor", "u8", per_channel=False, summary="U8S8, weights per tensor"),
            Recipe("int8-s8s8", "s8", per_channel=True, summary="S8S8, ONNX Runtime's default"),
            Recipe(
                "int8-explicit",
                "s8",
                per_channel=True,
                explicit=True,
                summary="S8S8 around zero, per channel, as TensorRT takes it",
            ),
            Recipe(
                "int8-mixed",
                "u8",
                per_channel=True,
                overflow_safe=True,
                summary="stem FP32, 7-bit weights, depthwise 8-bit: no overflow without VNNI",
            ),
        )
    }
)
