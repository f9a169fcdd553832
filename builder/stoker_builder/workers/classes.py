"""Which worker builds for which target: decided from what the two say, and nothing else."""

from collections.abc import Mapping
from typing import Final

from stoker_builder.tensorrt.targets import PlanTarget
from stoker_builder.workers.documents import Software
from stoker_contract.target import Runtime, Target, is_version

_DLA: Final = "-dla"


def class_of(target_name: str) -> str:
    """The kind of worker that makes plans for a target: an accelerator sits on the same board."""
    return target_name.removesuffix(_DLA)


def classes_of(software: Software, targets: Mapping[str, PlanTarget]) -> tuple[str, ...]:
    """The classes that a machine with some software can build for."""
    found = {
        class_of(name)
        for name, target in targets.items()
        if why_not_here(target.target, target.runtime, software) is None
    }
    return tuple(sorted(found))


def why_not_here(target: Target, runtime: Runtime, software: Software) -> str | None:
    """Say why plans for a target can not be made with some software, or None if they can."""
    if runtime is Runtime.TENSORRT_RTX:
        here = software.tensorrt_rtx
        return None if here else "TensorRT-RTX is not installed here"
    for name, needed, present, fits in (
        ("module", target.module, software.module, str.__eq__),
        ("tensorrt", target.tensorrt, software.tensorrt, is_version),
        ("l4t", target.l4t, software.l4t, is_version),
    ):
        if needed is not None and not fits(needed, present or "none"):
            return f"{target.name} needs {name} {needed}, this worker has {present or 'none'}"
    return None
