"""What is to be built, checked before anything slow begins."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.concurrency import Goal
from stoker_builder.latency.torch_routes import DEFAULT_ROUTES, ROUTES
from stoker_builder.models.source import DEFAULT_TERMS, Terms
from stoker_builder.tensorrt.settings import ShapeRange
from stoker_contract.manifest import Accelerator
from stoker_contract.names import PositiveInt, Slug, Version
from stoker_contract.target import Runtime

LATENCY_S: Final = 2.0
EMULATION_BUDGET_S: Final = 20.0
# for a demonstration, or to see whether a model can be built at all
QUICK_LATENCY_S: Final = 0.6
QUICK_EMULATION_BUDGET_S: Final = 10.0

WAIT_S: Final = 4 * 3600.0

_Fraction = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, slots=True)
class BuildService:
    """Where plans for boards are made.

    Attributes:
        token_file: has what the service wants to see.
        ca: whom to trust, if not those that the system trusts.
        wait_s: a plan that is not there after so long is given up.
    """

    url: str
    token_file: Path
    ca: Path | None = None
    wait_s: float = WAIT_S


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build.

    Attributes:
        model: an ``.onnx`` file, or a factory as ``package.module:function``.
        terms: what else was said about the model.
        data: the data set's entry point.
        data_arguments: keyword arguments for it.
        output: the release folder to write.
        name: of the model; ``version`` and ``counter`` tell its releases apart.
        min_counter: older releases that a device may no longer take once it saw this one.
        runtimes: that the devices may have; of these a target tries what it knows.
        plan_shapes: the shapes that inputs of plans may have; other artifacts take one.
        accelerators: of ONNX Runtime that a device may run FP32 on, where it has them.
        precision: ``fp32`` makes no INT8 candidates.
        budget: the accuracy that INT8 may cost, as a fraction of the metric's span (0.01 is
            one point).
        relative: the budget is a share of what FP32 reaches instead.
        slice_budget: what any one slice of the data may lose, as a fraction of the span.
        gate: ``bound`` asks the 95 % bound of the loss to be within the budget, ``point``
            the loss that was seen.
        certification_samples: at most so many; None takes all there are.
        latency_s: how long each variant is timed, at least; 0 times nothing, and then no
            INT8 ships.
        cores: of a device that inference may use; how each artifact uses them is measured.
        goal: what is made good use of them for, ``latency`` or ``throughput``.
        comparisons: try the recipes that stand for what others do, too.
        baselines: time the unoptimised graph and what the audit refused as well: it shows
            where the speed comes from, and takes time.
        torch_routes: PyTorch's own ways to run the model that are timed too.
        emulation_budget_s: for running a target's kernels that this machine does not have.
        cache: a folder that keeps what builds have found out; None keeps nothing.
        unsafe_skip_gates: ship the first INT8 candidate whatever it answers, and stamp it.
        profile: a folder for traces of what ships.
        builds: who makes plans for boards; None makes none.
    """

    model: str
    data: str
    output: Path
    name: str
    version: str
    counter: int
    targets: tuple[str, ...]
    weights: Path | None = None
    terms: Terms = DEFAULT_TERMS
    data_arguments: dict[str, str] = field(default_factory=dict)
    min_counter: int = 0
    runtimes: tuple[Runtime, ...] = (Runtime.ONNXRUNTIME, Runtime.OPENVINO)
    plan_shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    accelerators: tuple[Accelerator, ...] = ()
    precision: Literal["auto", "fp32"] = "auto"
    budget: float = 0.01
    relative: bool = False
    slice_budget: float = 0.05
    gate: Literal["bound", "point"] = "bound"
    confidence: float = 0.95
    calibration_samples: int = 100
    certification_samples: int | None = None
    latency_s: float = LATENCY_S
    cores: int = 1
    goal: Goal = "latency"
    baselines: bool = True
    comparisons: bool = True
    torch_routes: tuple[str, ...] = DEFAULT_ROUTES
    emulation_budget_s: float = EMULATION_BUDGET_S
    unsafe_skip_gates: bool = False
    cache: Path | None = None
    profile: Path | None = None
    builds: BuildService | None = None

    @property
    def timed_threads(self) -> int:
        """How many threads candidates are compared with.

        Whoever wants the least latency gives a run all cores, and what is fastest with one thread
        need not be with more. Throughput comes from runs side by side, of one thread each.
        """
        return self.cores if self.goal == "latency" else 1

    def check(self) -> None:
        """Refuse what can not become a release.

        Raises:
            BuildError: ``BAD_REQUEST``.
        """
        _check(Slug, self.name, "--name", "lower-case letters, digits, dots and dashes")
        _check(Version, self.version, "--version", "1.0.0, say")
        _check(PositiveInt, self.counter, "--counter", "a whole number that rises every time")
        _check(PositiveInt, self.cores, "--cores", "a whole number")
        # an engine starts no more threads than that, and the manifest would claim them
        here = len(os.sched_getaffinity(0))
        if self.cores > here:
            detail = f"--cores is {self.cores}, and this machine has {here} for this process"
            hint = "how a model uses them is measured: build where there are as many"
            raise BuildError(BuildCode.BAD_REQUEST, detail, hint)
        within = "points between 0 and 100"
        _check(_Fraction, self.budget, "--budget", within)
        _check(_Fraction, self.slice_budget, "--slice-budget", within)
        if Runtime.ONNXRUNTIME not in self.runtimes:
            detail = "onnxruntime is not among the runtimes"
            hint = "FP32 in ONNX Runtime is what everything is compared with, and the fallback"
            raise BuildError(BuildCode.BAD_REQUEST, detail, hint)
        if not self.targets:
            hint = "x86-64-vnni, say"
            raise BuildError(BuildCode.BAD_REQUEST, "no target was named", hint)
        unknown = set(self.torch_routes) - set(ROUTES)
        if unknown:
            detail = f"PyTorch has no route {min(unknown)!r} here"
            hint = f"--torch-routes all, or some of {', '.join(ROUTES)}"
            raise BuildError(BuildCode.BAD_REQUEST, detail, hint)
        if len(set(self.targets)) != len(self.targets):
            detail = "a target was named twice"
            raise BuildError(BuildCode.BAD_REQUEST, detail, "name each target once")


def _check(kind: Any, value: object, option: str, expected: str) -> None:  # noqa: ANN401  a type
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        detail = f"{option} is {value!r}"
        raise BuildError(BuildCode.BAD_REQUEST, detail, f"expected {expected}") from None
