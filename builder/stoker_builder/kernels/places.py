"""Where a candidate can be run as on the devices of a target.

OpenVINO can be told to use no newer instructions than a processor of the target has, so its
answers and its times are those of the target's kernels, on this core. ONNX Runtime can not be
told: without the right processor it is emulated, which gives answers but no times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

from stoker_builder.kernels.isa import VNNI, best_kernels, host_isa, target_runs_natively
from stoker_contract.target import Runtime, Target

AVX2_CAP: Final[Mapping[str, str]] = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
AVX512_CAP: Final[Mapping[str, str]] = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}


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
    """

    way: Way
    name: str
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def times(self) -> bool:
        """Whether a duration measured here says anything about a device."""
        return self.way is not Way.EMULATED


def native() -> Place:
    """This machine as it is."""
    return Place(Way.NATIVE, f"native {best_kernels(host_isa())}")


EMULATED: Final = Place(Way.EMULATED, "emulated")


def place_for(target: Target, runtime: Runtime) -> Place:
    """Where to run candidates of a runtime for a target, on this machine."""
    if target_runs_natively(target):
        return native()
    if runtime is Runtime.OPENVINO and (cap := _cap(target, host_isa())) is not None:
        level = cap["ONEDNN_MAX_CPU_ISA"]
        return Place(Way.CAPPED, f"{best_kernels(host_isa())} capped at {level}", cap)
    return EMULATED


def _cap(target: Target, isa: frozenset[str]) -> Mapping[str, str] | None:
    """The environment that takes off what the target's devices lack, if that is all there is."""
    wanted = {feature for choice in target.isa for feature in choice.split("|")}
    here = all(set(choice.split("|")) & isa for choice in target.isa)
    if target.arch != "x86_64" or not here or wanted & VNNI or "avx2" not in isa:
        return None
    return AVX512_CAP if any(feature.startswith("avx512") for feature in wanted) else AVX2_CAP


def is_installed(runtime: Runtime) -> bool:
    """Whether this machine can run a runtime at all."""
    return find_spec(runtime.replace("-", "_")) is not None
