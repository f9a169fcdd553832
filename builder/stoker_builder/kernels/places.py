"""Where a candidate can be run as on the devices of a target.

OpenVINO can be told to use no newer instructions than a processor of the target has, so its
answers and its times are those of the target's kernels, on this core. ONNX Runtime can not be
told; a copy of it can be lied to, see :mod:`kernels.cap`. Where that can not be made, what answers
alike is run as it is, and the rest is emulated, which gives answers, slowly, and no times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from stoker_builder.kernels.cap import CappedRuntime
from stoker_builder.kernels.isa import AMX, VNNI, best_kernels, host_isa, target_runs_natively
from stoker_contract.target import Runtime, Target

AVX2_CAP: Final = "AVX2"
AVX512_CAP: Final = "AVX512_CORE"
VNNI_CAP: Final = "AVX512_CORE_VNNI"
BF16_CAP: Final = "AVX512_CORE_BF16"


class Way(StrEnum):
    """How a place runs a candidate."""

    NATIVE = "native"
    CAPPED = "capped"
    EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class Place:
    """One way to run candidates; candidates in the same place can be compared in time.

    Attributes:
        name: goes into the manifest as ``certified_on``.
        environment: of the processes that run there.
        packages: comes first on their module path.
        floats_as_here: FP32 is as fast there as in this process: nothing that it uses is hidden.
    """

    way: Way
    name: str
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)
    packages: Path | None = field(default=None, compare=False)
    floats_as_here: bool = field(default=False, compare=False)

    @property
    def times(self) -> bool:
        """Whether a duration measured here says anything about a device."""
        return self.way is not Way.EMULATED


def native() -> Place:
    """This machine as it is."""
    return Place(Way.NATIVE, f"native {best_kernels(host_isa())}", floats_as_here=True)


EMULATED: Final = Place(Way.EMULATED, "emulated")


def place_for(target: Target, runtime: Runtime, capped: CappedRuntime | None = None) -> Place:
    """Where to run candidates of a runtime for a target, on this machine.

    Args:
        target: whose kernels are wanted.
        runtime: whose candidates.
        capped: ONNX Runtime for older processors, if there is one.
    """
    level, natively = cap_for(target), target_runs_natively(target)
    if level is None or (capped is None and (natively or runtime is not Runtime.OPENVINO)):
        # tiles answer as VNNI does, only faster: better than an emulator, which is never timed
        return native() if natively else EMULATED
    return Place(
        Way.CAPPED,
        f"{best_kernels(host_isa())} capped at {level}",
        {"ONEDNN_MAX_CPU_ISA": level, **(capped.environment(level) if capped else {})},
        capped.packages if capped else None,
        floats_as_here=level != AVX2_CAP,
    )


def cap_for(target: Target) -> str | None:
    """What takes off of this machine what a target's devices lack, if that is all there is."""
    isa = host_isa()
    wanted = {feature for choice in target.isa for feature in choice.split("|")}
    here = all(set(choice.split("|")) & isa for choice in target.isa)
    if target.arch != "x86_64" or not here:
        return None
    if isa & VNNI and not wanted & (VNNI | {AMX}):
        return AVX512_CAP if any(feature.startswith("avx512") for feature in wanted) else AVX2_CAP
    if AMX in isa and AMX not in wanted:
        return BF16_CAP if "avx512_bf16" in wanted else VNNI_CAP
    return None


def is_installed(runtime: Runtime) -> bool:
    """Whether this machine can run a runtime at all."""
    return find_spec(runtime.replace("-", "_")) is not None
