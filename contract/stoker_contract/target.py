"""What an artifact is built for, what a device is, and whether the one runs on the other."""

from pydantic import Field

from stoker_contract.document import Document
from stoker_contract.enums import StrEnum
from stoker_contract.names import Count, ShortText, Slug


class Arch(StrEnum):
    """Processor architecture, as ``uname -m`` names it."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


class ArtifactKind(StrEnum):
    """The format of an artifact, which decides the engine that runs it."""

    ONNX = "onnx"
    OPENVINO_IR = "openvino-ir"
    TENSORRT_PLAN = "tensorrt-plan"


class Runtime(StrEnum):
    """What runs an artifact; the names are those of ``Profile.runtimes``."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


# The first is taken when an artifact names none.
RUNTIMES_OF_KIND = {
    ArtifactKind.ONNX: (Runtime.ONNXRUNTIME, Runtime.OPENVINO),
    ArtifactKind.OPENVINO_IR: (Runtime.OPENVINO,),
    ArtifactKind.TENSORRT_PLAN: (Runtime.TENSORRT, Runtime.TENSORRT_RTX),
}


def runtime_of(kind: ArtifactKind, named: Runtime | None) -> Runtime:
    """The runtime that an artifact is for: the one it names, else the usual one of its kind."""
    return named or RUNTIMES_OF_KIND[kind][0]


class Target(Document):
    """What an artifact is built for. A field that is absent does not matter.

    Attributes:
        isa: instruction-set features the device must have, as ``/proc/cpuinfo`` spells
            them. ``"avx512_vnni|avx_vnni"`` asks for one of the two.
        gpu_sm: compute capability without its dot, ``"87"``.
        module: the module's SKU, ``"orin-nano-8gb"``; plans are not exchanged between SKUs.
        tensorrt: of the runtime that the artifact names, TensorRT or TensorRT-RTX. Versions
            are as exact as they are written: ``"36.4"`` is met by ``"36.4.3"``.
    """

    name: Slug
    arch: Arch
    isa: tuple[ShortText, ...] = ()
    gpu_sm: ShortText | None = None
    module: ShortText | None = None
    tensorrt: ShortText | None = None
    cuda: ShortText | None = None
    l4t: ShortText | None = None


class Profile(Document):
    """What a device is, detected by itself."""

    arch: Arch
    isa: tuple[ShortText, ...] = ()
    cpu_model: ShortText = ""
    cores: Count = 0
    memory_bytes: Count = 0
    runtimes: dict[Slug, ShortText] = Field(default_factory=dict)
    gpu_sm: ShortText | None = None
    module: ShortText | None = None
    tensorrt: ShortText | None = None
    cuda: ShortText | None = None
    l4t: ShortText | None = None
    stoker: ShortText = ""
    labels: dict[Slug, ShortText] = Field(default_factory=dict)


def is_version(needed: str, present: str) -> bool:
    """Whether a version is the one that is needed, as far as the two are written out."""
    pairs = zip(needed.split("."), present.split("."), strict=False)
    return all(one == other for one, other in pairs)


def why_incompatible(
    target: Target, kind: ArtifactKind, profile: Profile, runtime: Runtime | None = None
) -> str | None:
    """Say why an artifact can not run on a device, or None if it can.

    Args:
        target: what the artifact is built for.
        kind: its format.
        profile: what the device is.
        runtime: what is to run it; None for the usual one of its kind.
    """
    if target.arch != profile.arch:
        return f"target {target.name} needs {target.arch}, this device is {profile.arch}"
    for wanted in target.isa:
        if not set(wanted.split("|")) & set(profile.isa):
            return f"target {target.name} needs {wanted}, this processor does not have it"
    wanted_runtime = runtime_of(kind, runtime)
    lacking = _lacking(target, wanted_runtime, profile)
    if lacking is not None:
        return lacking
    if wanted_runtime not in RUNTIMES_OF_KIND[kind]:
        return f"{wanted_runtime} does not run {kind}"
    if wanted_runtime not in profile.runtimes:
        return f"{kind} needs {wanted_runtime}, which is not installed on this device"
    return None


def _lacking(target: Target, runtime: Runtime, profile: Profile) -> str | None:
    # the two TensorRTs count their versions apart
    is_rtx = runtime is Runtime.TENSORRT_RTX
    tensorrt = profile.runtimes.get(runtime) if is_rtx else profile.tensorrt
    for name, needed, present, fits in (
        ("gpu_sm", target.gpu_sm, profile.gpu_sm, str.__eq__),
        ("module", target.module, profile.module, str.__eq__),
        ("tensorrt", target.tensorrt, tensorrt, is_version),
        ("cuda", target.cuda, profile.cuda, is_version),
        ("l4t", target.l4t, profile.l4t, is_version),
    ):
        if needed is not None and not fits(needed, present or "none"):
            there = present or "none"
            return f"target {target.name} needs {name} {needed}, this device has {there}"
    return None
