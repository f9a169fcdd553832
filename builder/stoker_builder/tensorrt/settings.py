"""How a plan is compiled, as a value that crosses to the process that compiles it."""

from pydantic import Field, model_validator
from typing_extensions import Self

from stoker_builder.tensorrt.layers import PlanLayers
from stoker_contract.document import Document
from stoker_contract.enums import StrEnum
from stoker_contract.manifest import EngineIO
from stoker_contract.names import Count, PositiveInt, ShortText
from stoker_contract.target import Runtime


class ShapeRange(Document):
    """The shapes one input may have; the engine is fastest at ``opt``."""

    min: tuple[PositiveInt, ...]
    opt: tuple[PositiveInt, ...]
    max: tuple[PositiveInt, ...]

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        ranks = {len(self.min), len(self.opt), len(self.max)}
        ordered = all(
            low <= usual <= high
            for low, usual, high in zip(self.min, self.opt, self.max, strict=False)
        )
        if len(ranks) != 1 or not ordered:
            msg = "min, opt and max have one rank and rise"
            raise ValueError(msg)
        return self


class CompileSettings(Document):
    """Everything but the graph that decides what a plan becomes.

    Attributes:
        compute_capability: ``"89"`` compiles for that GPU wherever this runs, which only
            TensorRT-RTX can; None for the GPU of this machine.
        workspace_bytes: what a layer may use at most while it runs; small boards share
            their memory with everything else.
        profile: a shape range for each input that has free dimensions.
        dla_core: place what it can on this core, the rest on the GPU.
        optimisation_level: 0 (quick to build) to 5; None takes the library's own.
    """

    runtime: Runtime
    compute_capability: ShortText | None = None
    workspace_bytes: PositiveInt | None = None
    profile: dict[str, ShapeRange] = Field(default_factory=dict)
    dla_core: Count | None = None
    optimisation_level: Count | None = None


class CompileJob(Document):
    """One line for the compiling process. Paths are absolute."""

    settings: CompileSettings
    onnx: str
    plan: str
    timing_cache: str | None = None


class Validity(StrEnum):
    """What the runtime that belongs to a compiler says of a plan."""

    VALID = "valid"  # it can run on the GPU of this machine
    NO_GPU = "no-gpu"  # it reads the plan and misses a GPU to say more
    NOT_HERE = "not-here"  # it is for another GPU than that of this machine
    REFUSED = "refused"
    NOT_ASKED = "not-asked"  # TensorRT has no such question


class CompileReport(Document):
    """What it answers. ``stopped`` is a build code, and then nothing was written.

    Attributes:
        io: the tensors of the plan, as TensorRT has them.
        version: of the library that compiled.
        layers: of the network before fusion.
        validity: what the runtime of the same library says of the plan.
        inspected: what its layers became; None where no GPU is there to load it.
    """

    stopped: ShortText | None = None
    detail: str = ""
    version: ShortText = ""
    io: EngineIO | None = None
    layers: Count = 0
    seconds: float = 0.0
    validity: Validity = Validity.NOT_ASKED
    warnings: tuple[str, ...] = ()
    inspected: PlanLayers | None = None
