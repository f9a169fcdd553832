"""A candidate: a file, and how it is run. The same file in two runtimes is two candidates."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_contract.manifest import Precision, SessionOptions
from stoker_contract.target import Runtime


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is audited, measured, judged and shipped.

    Attributes:
        recipe: which file, by the name of how it was made.
        session: the runtime that runs it, and how.
    """

    recipe: str
    session: SessionOptions = field(default_factory=SessionOptions)

    @property
    def runtime(self) -> Runtime:
        """What runs it."""
        return self.session.runtime or Runtime.ONNXRUNTIME

    @property
    def is_float(self) -> bool:
        """Whether nothing of it is quantised."""
        return self.recipe == FP32

    @property
    def precision(self) -> Precision:
        """What most of its arithmetic is done in."""
        return Precision(self.session.float_precision) if self.is_float else Precision.INT8

    @property
    def name(self) -> str:
        """Its name in tables and as a file: ``int8-perchannel``, ``bf16-openvino``."""
        floats = self.session.float_precision
        if self.is_float:
            parts: list[str] = [floats]
        else:
            parts = [self.recipe] if floats == FP32 else [self.recipe, floats]
        if self.runtime is not Runtime.ONNXRUNTIME:
            parts.append(self.runtime)
        return "-".join(parts)


REFERENCE = Candidate(FP32)
"""FP32 in ONNX Runtime: what every other candidate is compared with."""


def candidates_of(
    recipes: Iterable[str], runtimes: Iterable[Runtime], float_precisions: Iterable[str] = (FP32,)
) -> tuple[Candidate, ...]:
    """Every combination, floating point first, in the order of the arguments.

    Only OpenVINO offers a choice of what floating point is done in.
    """
    sessions = [
        SessionOptions.model_validate(
            {"runtime": None if runtime is Runtime.ONNXRUNTIME else runtime, "float_precision": p},
            strict=False,
        )
        for runtime in runtimes
        for p in (float_precisions if runtime is Runtime.OPENVINO else (FP32,))
    ]
    found = [Candidate(recipe, session) for recipe in (FP32, *recipes) for session in sessions]
    return tuple(dict.fromkeys([REFERENCE, *(c for c in found if _is_worth_making(c))]))


def _is_worth_making(candidate: Candidate) -> bool:
    recipe = RECIPES.get(candidate.recipe)
    return recipe is None or recipe.runtimes is None or candidate.runtime in recipe.runtimes
