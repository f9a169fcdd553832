"""The targets a release can be built for, as data beside this module."""

import tomllib
from importlib import resources
from typing import Literal

from pydantic import ValidationError

from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.document import Document
from stoker_contract.names import ShortText, Slug
from stoker_contract.target import Arch, Runtime, Target


class TargetSpec(Document):
    """A target as the builder sees it.

    Attributes:
        preference: of the targets that a device fits, it takes the one with the highest.
        recipes: how to make its INT8 candidates, most promising first.
        runtimes: what may run them, the preferred first of those that are equally fast.
        float_precisions: what OpenVINO may do floating point in on these processors.
    """

    name: Slug
    arch: Arch
    isa: tuple[ShortText, ...]
    preference: int
    recipes: tuple[Slug, ...] = ()
    runtimes: tuple[Runtime, ...] = (Runtime.ONNXRUNTIME,)
    float_precisions: tuple[Literal["fp32", "bf16", "fp16"], ...] = ("fp32",)

    @property
    def target(self) -> Target:
        """The target as the manifest says it."""
        return Target(name=self.name, arch=self.arch, isa=self.isa)


def target_names() -> tuple[str, ...]:
    """Every target that there is."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


def load_target(name: str) -> TargetSpec:
    """Read one target.

    Raises:
        BuildError: ``UNKNOWN_TARGET``.
    """
    if name not in target_names():
        hint = f"there are: {', '.join(target_names())}; plans: docs/hardware-tested.md"
        raise BuildError(BuildCode.UNKNOWN_TARGET, f"there is no target {name!r}", hint)
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text()
    try:
        return TargetSpec.model_validate(tomllib.loads(text), strict=False)
    except ValidationError as error:
        hint = "repair the installation"
        raise BuildError(BuildCode.UNKNOWN_TARGET, f"target {name}: {error}", hint) from None
