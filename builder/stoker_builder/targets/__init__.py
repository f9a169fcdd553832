"""The targets a release can be built for: data beside this module, or files of the user's."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from stoker_builder import toml
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.document import Document
from stoker_contract.names import Slug
from stoker_contract.target import Arch, Runtime, Target

_SUFFIX: Final = ".toml"

Feature = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\|[a-z0-9_]+)*$", max_length=128)]
"""What a processor has to have, as ``/proc/cpuinfo`` spells it; ``a|b`` is either of two."""


class TargetSpec(Document):
    """A target as the builder sees it.

    Attributes:
        isa: each of these features.
        preference: of the targets that a device fits, it takes the one with the highest.
        recipes: how to make its INT8 candidates, most promising first.
        runtimes: what may run them, the preferred first of those that are equally fast.
        float_precisions: what OpenVINO may do floating point in on these processors.
    """

    name: Slug
    arch: Arch
    isa: tuple[Feature, ...]
    preference: int
    recipes: tuple[Slug, ...] = ()
    runtimes: tuple[Runtime, ...] = (Runtime.ONNXRUNTIME,)
    float_precisions: tuple[Literal["fp32", "bf16", "fp16"], ...] = ("fp32",)

    @property
    def target(self) -> Target:
        """The target as the manifest says it."""
        return Target(name=self.name, arch=self.arch, isa=self.isa)


def target_names() -> tuple[str, ...]:
    """Every target that comes with stoker."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name[: -len(_SUFFIX)] for file in files if is_file(file.name)))


def is_file(name: str) -> bool:
    """Whether a target is named by a file of the user's."""
    return name.endswith(_SUFFIX)


def load_target(name: str) -> TargetSpec:
    """Read one target.

    Args:
        name: of a target that comes with stoker, or the path of a ``.toml`` file.

    Raises:
        BuildError: ``UNKNOWN_TARGET``, or ``TARGET_FILE`` for a file that is none.
    """
    if is_file(name):
        return _load_file(Path(name))
    return _parse(source_of(name), name)


def source_of(name: str) -> str:
    """The file of a target that comes with stoker, to begin one's own with.

    Raises:
        BuildError: ``UNKNOWN_TARGET``.
    """
    if name not in target_names():
        hint = f"there are: {', '.join(target_names())}; plans: docs/hardware-tested.md"
        raise BuildError(BuildCode.UNKNOWN_TARGET, f"there is no target {name!r}", hint)
    return resources.files(__package__).joinpath(f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def _load_file(path: Path) -> TargetSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        detail = f"{path} can not be read: {getattr(error, 'strerror', None) or error}"
        raise BuildError(BuildCode.TARGET_FILE, detail, "check the path in --targets") from None
    found = _parse(text, str(path))
    if found.name in target_names():
        detail = f"{path}: the name {found.name} is that of a target that comes with stoker"
        raise BuildError(BuildCode.TARGET_FILE, detail, "give it a name of its own")
    return found


def _parse(text: str, where: str) -> TargetSpec:
    hint = "`stoker target show x86-64-vnni` prints one to begin with"
    try:
        told = toml.loads(text)
        found = TargetSpec.model_validate(told, strict=False)
    except toml.TOMLDecodeError as error:
        raise BuildError(BuildCode.TARGET_FILE, f"{where} is no TOML: {error}", hint) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "it"
        detail = f"{where}: {key}: {first['msg']}"
        raise BuildError(BuildCode.TARGET_FILE, detail, hint) from None
    if strange := sorted(set(told) - set(TargetSpec.model_fields)):
        detail = f"{where}: {strange[0]}: no target has that"
        raise BuildError(BuildCode.TARGET_FILE, detail, hint)
    if unknown := [recipe for recipe in found.recipes if recipe not in RECIPES]:
        detail = f"{where}: there is no recipe {unknown[0]!r}"
        raise BuildError(BuildCode.TARGET_FILE, detail, f"there are: {', '.join(RECIPES)}")
    return found
