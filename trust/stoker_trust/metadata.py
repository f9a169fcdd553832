"""Making, signing and checking TUF metadata: the part both repositories share."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from stoker_contract.codes import ReasonCode
from stoker_trust.errors import TrustError
from stoker_trust.keys import Keyring, KeyRole

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

LIFETIME: Final[Mapping[str, timedelta]] = {
    Root.type: timedelta(days=365),
    Targets.type: timedelta(days=365),
    Snapshot.type: timedelta(days=90),
    # Short, because it is what ends a freeze attack. `stoker repository refresh` renews it.
    Timestamp.type: timedelta(days=30),
}


def expiry(kind: str, now: datetime) -> datetime:
    """When metadata of a kind that is signed now expires."""
    return (now + LIFETIME[kind]).replace(microsecond=0)


def signed(payload: S, keyring: Keyring, role: KeyRole) -> Metadata[S]:
    """``payload`` with a signature of every key of the role."""
    metadata = Metadata(payload)
    for signer in keyring.signers(role):
        metadata.sign(signer, append=True)
    return metadata


def make_root(
    keyring: Keyring, own: KeyRole, roles: Mapping[str, KeyRole], now: datetime
) -> Metadata[Root]:
    """The first root of a repository, signed by its own keys."""
    root = Root(version=1, expires=expiry(Root.type, now), consistent_snapshot=True)
    for name, role in {Root.type: own, **roles}.items():
        root.roles[name] = Role([], keyring.thresholds.get(role, 1))
        for signer in keyring.signers(role):
            root.add_key(signer.public_key, name)
    return signed(root, keyring, own)


def read(path: Path, kind: type[S]) -> Metadata[S]:
    """Read metadata of one kind from a file; the signature is not checked here.

    Raises:
        TrustError: it is missing or malformed.
    """
    try:
        metadata: Metadata[S] = Metadata.from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise TrustError(ReasonCode.MALFORMED, f"{path} is missing") from None
    except RepositoryError as error:
        raise TrustError(ReasonCode.MALFORMED, f"{path}: {error}") from None
    if not isinstance(metadata.signed, kind):
        raise TrustError(ReasonCode.MALFORMED, f"{path} is no {kind.type} metadata")
    return metadata


def require_signature(delegator: Root | Targets, name: str, metadata: Metadata[S]) -> None:
    """Check that ``delegator`` trusts the keys that signed ``metadata``.

    Raises:
        TrustError: ``SIGNATURE``, it does not.
    """
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise TrustError(ReasonCode.SIGNATURE, f"{name}: {error}") from None


def latest_root(folder: Path) -> Metadata[Root]:
    """The newest ``N.root.json`` of a folder.

    Raises:
        TrustError: there is none.
    """
    versions = [
        int(path.name.split(".", 1)[0])
        for path in folder.glob("*.root.json")
        if path.name.removesuffix(".root.json").isdigit()
    ]
    if not versions:
        hint = "Make keys and repository with: stoker key init --dev"
        raise TrustError(ReasonCode.ROOT_CHAIN, f"there is no root in {folder}", hint=hint)
    return read(folder / f"{max(versions)}.root.json", Root)
