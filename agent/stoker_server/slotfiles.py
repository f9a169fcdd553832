"""``slots/*.json``: what serves after a boot. The agent writes these files, the server reads."""

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from stoker_contract.codes import ReasonCode
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.engine import EngineSpec, SlotFile
from stoker_contract.errors import ContractError
from stoker_contract.names import Slug
from stoker_server.errors import ServeError

_SLUG: Final = TypeAdapter(Slug)
_COPY_SUFFIX: Final = ".json.copy"


def slot_names(folder: Path) -> list[str]:
    """The slots that have a file, or at least its copy."""
    names = {path.stem for path in folder.glob("*.json")}
    names |= {path.name.removesuffix(_COPY_SUFFIX) for path in folder.glob(f"*{_COPY_SUFFIX}")}
    return sorted(filter(_is_slug, names))


def read_slot(folder: Path, slot: str) -> SlotFile | None:
    """What a slot is to serve; None when it never served anything.

    Raises:
        ServeError: ``MALFORMED`` or as :class:`ContractError` says: the file is damaged.
    """
    path = folder / f"{slot}.json"
    try:
        file = SlotFile.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        detail = f"{path} can not be read: {error}"
        raise ServeError(ReasonCode.MALFORMED, detail) from None
    except ContractError as error:
        raise ServeError(error.code, f"{path}: {error.detail}") from None
    if file.slot != slot:
        raise ServeError(ReasonCode.MALFORMED, f"{path} is the file of slot {file.slot}")
    return file


def chain(folder: Path, slot: str) -> tuple[EngineSpec, ...]:
    """The engines of a slot in the order they are to be tried. Never raises.

    When the file is damaged or gone, whatever can still be read of it and of its copy
    (``<slot>.json.copy``, written after it) is used.
    """
    try:
        file = read_slot(folder, slot)
    except ServeError:
        file = None
    if file is None:
        found = _salvaged(folder / f"{slot}.json") + _salvaged(folder / f"{slot}{_COPY_SUFFIX}")
    else:
        found = [file.current, file.previous, file.fallback]
    unique = {spec.digest: spec for spec in reversed(found) if spec is not None}
    return tuple(reversed(unique.values()))


def _salvaged(path: Path) -> list[EngineSpec | None]:
    try:
        data = path.read_bytes()[:MAX_DOCUMENT_BYTES]
        whole = TypeAdapter(dict[str, object]).validate_json(data)
    except (OSError, ValidationError):
        return []
    specs: list[EngineSpec | None] = []
    for key in ("current", "previous", "fallback"):
        try:
            specs.append(EngineSpec.parse_object(whole.get(key)))
        except ContractError:
            continue
    return specs


def _is_slug(name: str) -> bool:
    try:
        _SLUG.validate_python(name)
    except ValidationError:
        return False
    return True
