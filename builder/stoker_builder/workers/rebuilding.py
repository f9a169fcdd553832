"""The same plan for hardware whose software went on: what device and release say, as a job."""

from collections.abc import Mapping

from stoker_builder.tensorrt.targets import PlanTarget
from stoker_builder.workers.classes import class_of
from stoker_builder.workers.documents import BuildJob
from stoker_contract.manifest import Artifact, Manifest
from stoker_contract.target import ArtifactKind, Runtime, is_version


def target_for(
    module: str | None,
    tensorrt: str | None,
    l4t: str | None,
    targets: Mapping[str, PlanTarget],
) -> PlanTarget | None:
    """The target that a board is now, or None where no target is like it."""
    for target in targets.values():
        wanted = target.target
        if target.runtime is not Runtime.TENSORRT or target.dla_core is not None:
            continue
        pairs = ((wanted.tensorrt, tensorrt), (wanted.l4t, l4t))
        fits = all(is_version(need or "", have or "none") for need, have in pairs)
        if wanted.module == module and fits:
            return target
    return None


def plan_of(manifest: Manifest, module: str | None) -> Artifact | None:
    """The plan that a release has for a module, on the GPU rather than on an accelerator."""
    found = [
        artifact
        for artifact in manifest.artifacts
        if artifact.kind is ArtifactKind.TENSORRT_PLAN and artifact.target.module == module
    ]
    plain = [one for one in found if class_of(one.target.name) == one.target.name]
    return next(iter(plain or found), None)


def again_for(target: PlanTarget, before: BuildJob) -> BuildJob:
    """The job of a plan once more, for another target and the same shapes."""
    profile = before.settings.profile
    return before.model_copy(
        update={
            "hardware_class": class_of(target.name),
            "settings": target.settings.model_copy(update={"profile": profile}),
            "target": target.target,
        }
    )
