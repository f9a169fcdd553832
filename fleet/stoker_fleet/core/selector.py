"""Selectors: which devices are meant by ``all``, ``edge-1,edge-2`` or ``site=berlin,isa=avx2``."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from stoker_contract.codes import ReasonCode
from stoker_contract.names import Slug
from stoker_contract.target import Profile
from stoker_fleet.errors import FleetError

ALL = "all"
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True)
class Selector:
    """Either device ids, any of them, or properties, all of them. Both empty selects all."""

    devices: frozenset[str] = frozenset()
    properties: tuple[tuple[str, str], ...] = ()

    def selects(self, device: str, profile: Profile) -> bool:
        """Whether a device is meant."""
        if self.devices:
            return device in self.devices
        return all(_has(profile, key, value) for key, value in self.properties)


def parse_selector(text: str) -> Selector:
    """Read a selector.

    Raises:
        FleetError: ``BAD_REQUEST``, it is none. Empty text selects nothing, so it is refused.
    """
    terms = [term.strip() for term in text.split(",")]
    if terms == [ALL]:
        return Selector()
    properties = [tuple(part.strip() for part in term.split("=", 1)) for term in terms]
    if all(len(term) == 2 and all(term) for term in properties):  # noqa: PLR2004  key and value
        return Selector(properties=tuple((term[0], term[1]) for term in properties))
    if all(_is_slug(term) for term in terms):
        return Selector(devices=frozenset(terms))
    detail = f"{text!r} is no selector"
    hint = "Use all, device ids (edge-1,edge-2) or properties (site=berlin,arch=x86_64)."
    raise FleetError(ReasonCode.BAD_REQUEST, detail, hint=hint)


def _has(profile: Profile, key: str, value: str) -> bool:
    if key in profile.labels:
        return profile.labels[key] == value
    if key == "isa":
        return value in profile.isa
    if key == "runtime":
        return value in profile.runtimes
    return key in {"arch", "gpu_sm", "module", "tensorrt", "cuda", "l4t", "stoker"} and value == (
        getattr(profile, key) or ""
    )


def _is_slug(text: str) -> bool:
    try:
        _SLUG.validate_python(text)
    except ValidationError:
        return False
    return text != ALL
