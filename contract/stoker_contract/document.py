"""How every document is read and written: strict JSON in, canonical JSON out.

Reading raises :class:`ContractError` and nothing else, whatever the bytes are. Unknown
fields are ignored, so that an older device reads a newer document; unknown *values* of an
enumeration are refused, since their meaning can not be guessed.
"""

import json
from typing import Any, Final, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError

MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32


class Document(BaseModel):
    """A value that crosses a boundary: immutable, and valid by construction."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", ser_json_inf_nan="constants", allow_inf_nan=False
    )

    @classmethod
    def parse(cls, data: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Self:
        """Read a document from JSON bytes.

        Raises:
            ContractError: the bytes are not such a document. ``TOO_LARGE``,
                ``MALFORMED`` (not JSON, duplicate keys, too deep, wrong types) or
                ``UNSUPPORTED`` (a value of an enumeration that this version does not know).
        """
        check_json(data, max_bytes=max_bytes)
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise _contract_error(cls.__name__, error) from None

    @classmethod
    def parse_object(cls, value: object) -> Self:
        """Read a document from a JSON value that is already decoded (part of a signed one).

        Raises:
            ContractError: as :meth:`parse`.
        """
        try:
            data = json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise ContractError(ReasonCode.MALFORMED, f"{cls.__name__}: not a JSON value") from None
        return cls.parse(data)

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, nothing that is None."""
        value = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def to_object(self) -> dict[str, Any]:
        """The JSON object, for embedding into a signed document."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


def check_json(data: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> None:
    """Refuse what is too large, too deep, has duplicate keys or is not JSON at all.

    Raises:
        ContractError: ``TOO_LARGE`` or ``MALFORMED``.
    """
    if len(data) > max_bytes:
        detail = f"{len(data)} bytes, at most {max_bytes} are allowed"
        raise ContractError(ReasonCode.TOO_LARGE, detail)
    if _depth(data) > MAX_DEPTH:
        raise ContractError(ReasonCode.MALFORMED, f"nested deeper than {MAX_DEPTH} levels")
    try:
        json.loads(data.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except ContractError:
        raise
    except (ValueError, RecursionError) as error:
        raise ContractError(ReasonCode.MALFORMED, f"not JSON: {error}") from None


def _depth(data: bytes) -> int:
    deepest = depth = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == ord("\\"):
                escaped = True
            elif byte == ord('"'):
                in_string = False
        elif byte == ord('"'):
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ContractError(ReasonCode.MALFORMED, "an object has the same key twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ContractError(ReasonCode.MALFORMED, f"{name} is not JSON")


def _contract_error(document: str, error: ValidationError) -> ContractError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    unknown_value = first["type"] in {"enum", "literal_error"}
    code = ReasonCode.UNSUPPORTED if unknown_value else ReasonCode.MALFORMED
    return ContractError(code, f"{document}.{where}: {first['msg']}")
