"""The targets that plans are compiled for, as data beside this module."""

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Final

from stoker_builder import toml
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.settings import CompileSettings
from stoker_contract.document import Document
from stoker_contract.names import Count, PositiveInt, ShortText, Slug
from stoker_contract.target import Arch, Runtime, Target

_DLA: Final = "-dla"
_MIB: Final = 1024 * 1024


class PlanTarget(Document):
    """A GPU, and the TensorRT that plans for it are made with.

    Attributes:
        target: as the manifest says it; of TensorRT-RTX the version is the compiler's own.
        runtime: what compiles and runs its plans.
        preference: as that of other targets; a device with the GPU takes the plan.
        dla_core: plans are placed on the accelerator, as far as it takes them.
    """

    target: Target
    runtime: Runtime
    preference: int
    workspace_bytes: PositiveInt | None = None
    dla_core: Count | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.target.name

    @property
    def settings(self) -> CompileSettings:
        """How its plans are compiled."""
        rtx = self.runtime is Runtime.TENSORRT_RTX
        return CompileSettings(
            runtime=self.runtime,
            compute_capability=self.target.gpu_sm if rtx else None,
            workspace_bytes=self.workspace_bytes,
            dla_core=self.dla_core,
        )


class _Gpu(Document):
    gpu_sm: ShortText
    about: ShortText = ""


class _Rtx(Document):
    arch: Arch
    preference: int
    gpus: dict[Slug, _Gpu]


class _Module(Document):
    gpu_sm: ShortText
    jetpacks: tuple[Slug, ...]
    dla_cores: Count = 0
    workspace_mb: PositiveInt


class _JetPack(Document):
    l4t: ShortText
    cuda: ShortText
    tensorrt: ShortText


class _Jetson(Document):
    arch: Arch
    preference: int
    modules: dict[Slug, _Module]
    jetpacks: dict[Slug, _JetPack]


def plan_targets() -> Mapping[str, PlanTarget]:
    """Every target that there is, by name."""
    return {target.name: target for target in (*_rtx_targets(), *_jetson_targets())}


def check_compilable(target: PlanTarget) -> None:
    """Refuse a target whose plans are made on a board.

    Raises:
        BuildError: ``NO_COMPILER``.
    """
    if target.runtime is not Runtime.TENSORRT_RTX:
        detail = f"{target.name} is compiled on a {target.target.module}, and nowhere else"
        hint = "give --builds the URL of a build service with a worker of that class"
        raise BuildError(BuildCode.NO_COMPILER, detail, hint)


def _rtx_targets() -> Iterator[PlanTarget]:
    table = _Rtx.model_validate(_read("rtx.toml"), strict=False)
    for name, gpu in table.gpus.items():
        yield PlanTarget(
            target=Target(name=name, arch=table.arch, gpu_sm=gpu.gpu_sm),
            runtime=Runtime.TENSORRT_RTX,
            preference=table.preference,
        )


def _jetson_targets() -> Iterator[PlanTarget]:
    table = _Jetson.model_validate(_read("jetson.toml"), strict=False)
    for module_name, module in table.modules.items():
        for jetpack_name in module.jetpacks:
            jetpack = table.jetpacks[jetpack_name]
            plain = PlanTarget(
                target=Target(
                    name=f"{module_name}-{jetpack_name}",
                    arch=table.arch,
                    gpu_sm=module.gpu_sm,
                    module=module_name,
                    l4t=jetpack.l4t,
                    cuda=jetpack.cuda,
                    tensorrt=jetpack.tensorrt,
                ),
                runtime=Runtime.TENSORRT,
                preference=table.preference,
                workspace_bytes=module.workspace_mb * _MIB,
            )
            yield plain
            if module.dla_cores:
                yield _on_dla(plain)


def _on_dla(plain: PlanTarget) -> PlanTarget:
    """The accelerator leaves the GPU to others and saves power, so it is a target of its own."""
    target = plain.target.model_copy(update={"name": f"{plain.name}{_DLA}"})
    # never taken unless it is asked for: most nets are faster on the GPU
    update = {"target": target, "dla_core": 0, "preference": plain.preference - 1}
    return plain.model_copy(update=update)


def _read(name: str) -> object:
    return toml.loads(resources.files(__package__).joinpath(name).read_text())
