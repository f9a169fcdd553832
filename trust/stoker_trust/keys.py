"""The signing keys: one PEM file a key, and an index that hides the TUF roles.

Throw-away keys (``--dev``) lie beside each other and sign alone. Whatever they sign is stamped
``dev``, which a production device refuses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from stoker_contract.codes import ReasonCode
from stoker_contract.document import Document
from stoker_contract.enums import StrEnum
from stoker_contract.errors import ContractError
from stoker_contract.names import PositiveInt, ShortText
from stoker_trust import durable
from stoker_trust.errors import TrustError

INDEX: Final = "keyring.json"
ANCHORS: Final = "trust"
_FOLDER_MODE: Final = 0o700


class KeyRole(StrEnum):
    """What a key may sign. Values are persisted: never rename one."""

    IMAGE_ROOT = "image-root"
    IMAGE_TARGETS = "image-targets"
    IMAGE_RELEASE = "image-release"  # the delegated role of every model
    IMAGE_SNAPSHOT = "image-snapshot"
    IMAGE_TIMESTAMP = "image-timestamp"
    DIRECTOR_ROOT = "director-root"
    DIRECTOR_TARGETS = "director-targets"


class _RoleKeys(Document):
    threshold: PositiveInt = 1
    files: tuple[ShortText, ...]


class _Index(Document):
    schema_version: Literal[1] = 1
    dev: bool
    roles: dict[KeyRole, _RoleKeys]


@dataclass(frozen=True)
class Keyring:
    """All keys of a fleet that are at hand.

    Attributes:
        dev: throw-away keys: what they sign is marked, and refused in production.
    """

    directory: Path
    dev: bool
    thresholds: Mapping[KeyRole, int]
    _signers: Mapping[KeyRole, tuple[CryptoSigner, ...]]

    def signers(self, role: KeyRole) -> tuple[CryptoSigner, ...]:
        """The keys of a role.

        Raises:
            TrustError: ``SIGNATURE``, there are none here.
        """
        if signers := self._signers.get(role):
            return signers
        detail = f"there is no {role} key in {self.directory}"
        raise TrustError(ReasonCode.SIGNATURE, detail)

    def anchor(self, name: Literal["image-root", "director-root"]) -> Path:
        """The first root metadata of a repository: what is copied to the devices."""
        return self.directory / ANCHORS / f"{name}.json"


def create_dev_keyring(directory: Path) -> Keyring:
    """Make throw-away keys for every role.

    Raises:
        TrustError: there already are keys.
    """
    if (directory / INDEX).exists():
        detail = f"{directory} already holds keys, and they are never overwritten"
        raise TrustError(ReasonCode.BAD_REQUEST, detail, hint="Choose another --keys folder.")
    directory.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    roles = {}
    for role in KeyRole:
        file = f"{role}.pem"
        signer = CryptoSigner.generate_ed25519()
        durable.write(directory / file, signer.private_bytes, mode=durable.SECRET_MODE)
        roles[role] = _RoleKeys(files=(file,))
    # The index comes last: a folder without it holds no keyring.
    index = _Index(dev=True, roles=roles)
    durable.write(directory / INDEX, index.encode(), mode=durable.SECRET_MODE)
    return open_keyring(directory)


def open_keyring(directory: Path) -> Keyring:
    """Read the keys of a folder.

    Raises:
        TrustError: there are none, or they can not be read.
    """
    path = directory / INDEX
    try:
        index = _Index.parse(path.read_bytes())
    except FileNotFoundError:
        detail = f"there are no keys in {directory}"
        hint = "Make throw-away keys with: stoker key init --dev"
        raise TrustError(ReasonCode.SIGNATURE, detail, hint=hint) from None
    except ContractError as error:
        raise TrustError(error.code, f"{path}: {error.detail}") from None
    return Keyring(
        directory=directory,
        dev=index.dev,
        thresholds={role: keys.threshold for role, keys in index.roles.items()},
        _signers={
            role: tuple(_read_signer(directory / file) for file in keys.files)
            for role, keys in index.roles.items()
        },
    )


def _read_signer(path: Path) -> CryptoSigner:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        return CryptoSigner(key)
    except (OSError, ValueError, TypeError) as error:
        detail = f"the key {path} can not be read: {error}"
        raise TrustError(ReasonCode.SIGNATURE, detail) from None
