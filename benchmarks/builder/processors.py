"""What a row runs on: this processor as it is, or as an older one that it is taken for."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stoker_builder.kernels.cap import CappedRuntime
from stoker_builder.kernels.isa import host_isa, target_runs_natively
from stoker_builder.kernels.places import AVX2_CAP, VNNI_CAP, cap_for
from stoker_builder.targets import TargetSpec, load_target, target_names

NATIVE: Final = "native"
_BF16: Final = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True)
class Cap:
    """An older processor.

    Attributes:
        level: what oneDNN and both runtimes are told that they have.
        torch_level: the same for PyTorch's own kernels.
        target: what the builder calls such devices.
    """

    level: str
    torch_level: str
    target: str


CAPS: Final[Mapping[str, Cap]] = MappingProxyType(
    {
        "vnni": Cap(VNNI_CAP, "avx512", "x86-64-vnni"),
        "avx2": Cap(AVX2_CAP, "avx2", "x86-64-v3"),
    }
)


def measurable() -> Iterator[str]:
    """Name what rows this machine can have: as it is first, then ever older processors."""
    yield NATIVE
    for name, cap in CAPS.items():
        if cap_for(load_target(cap.target).target) == cap.level:
            yield name


def target_of(isa: str) -> str:
    """Name the target whose artifact is measured in such a row.

    Raises:
        ValueError: no target fits this machine.
    """
    if isa != NATIVE:
        return CAPS[isa].target
    specs: Iterator[TargetSpec] = map(load_target, target_names())
    here = [spec for spec in specs if target_runs_natively(spec.target)]
    if not here:
        msg = "no target fits this machine: `stoker target list` shows what they ask for"
        raise ValueError(msg)
    return max(here, key=lambda spec: spec.preference).name


def has_bf16(isa: str) -> bool:
    """Whether such a row has BF16 arithmetic; what is capped has not."""
    return isa == NATIVE and bool(_BF16 & host_isa())


def environment(isa: str, capped: CappedRuntime) -> dict[str, str]:
    """What a process needs so that all runtimes believe to be on an older processor."""
    cap = CAPS[isa]
    inherited = os.environ.get("PYTHONPATH")
    return {
        **capped.environment(cap.level),
        "PYTHONPATH": os.pathsep.join([str(capped.packages), *([inherited] if inherited else [])]),
        "ONEDNN_MAX_CPU_ISA": cap.level,
        "ATEN_CPU_CAPABILITY": cap.torch_level,
    }
