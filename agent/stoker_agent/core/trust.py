"""Decides on signed bytes. No I/O: whoever calls brings the bytes, the floors and the time.

The order is the defence: nothing in a document is interpreted before its signatures hold, and
every refusal has its own reason code. Every function here raises ``TrustError`` and nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, Root, Signature, TargetFile, Targets

from stoker_agent.errors import TrustError
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import MEMBER, Desired, FileRef, SlotDesired
from stoker_contract.document import MAX_DOCUMENT_BYTES, Document, check_json
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Artifact, Golden, Manifest
from stoker_contract.names import DeploymentId, Slug

MAX_ROOT_BYTES: Final = 512_000
MAX_SIGNATURES: Final = 32
DIRECTOR_ROLE: Final = Targets.type


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who this device is."""

    device: str
    fleet: str


@dataclass(frozen=True, slots=True)
class DirectorFloors:
    """What a director document must not go below.

    Attributes:
        generation: of the accepted document, 0 at first.
        payload_sha256: of exactly its bytes.
    """

    generation: int = 0
    payload_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signed document says about itself; errors carry it, so that they can be reported."""

    addressee: Addressee
    generation: int
    deployment_id: str

    def refuse(self, code: ReasonCode, detail: str, *, final: bool = True) -> TrustError:
        """An error that names the document it is about."""
        return TrustError(
            code, detail, final, generation=self.generation, deployment_id=self.deployment_id
        )


@dataclass(frozen=True, slots=True)
class CheckedDesired:
    """A director document that is what it says, for this device, and not too old.

    Attributes:
        files: every file the document names, by path.
        expires: when it must not be accepted any more.
        seen: it is byte for byte the accepted one.
    """

    desired: Desired
    claim: Claim
    payload_sha256: str
    files: Mapping[str, FileRef]
    expires: datetime
    seen: bool = False


def check_desired(
    payload: bytes, director_root: Root, me: Addressee, floors: DirectorFloors, now: datetime
) -> CheckedDesired:
    """Decide whether a director document may be considered at all.

    Raises:
        TrustError: ``TOO_LARGE``, ``MALFORMED``, ``SIGNATURE``, ``WRONG_DEVICE``,
            ``STALE_GENERATION``, ``EQUIVOCATION``, ``EXPIRED``, ``UNSUPPORTED`` or
            ``MIX_AND_MATCH``, checked in this order.
    """
    signed = _verified(payload, director_root)
    payload_sha256 = hashlib.sha256(payload).hexdigest()
    targets = _targets_of(signed)
    claim = _claim_of(signed, targets.version)
    if claim.addressee != me:
        other = claim.addressee
        detail = (
            f"the document is for {other.device} of fleet {other.fleet},"
            f" this is {me.device} of fleet {me.fleet}"
        )
        # Not with the claim: a status about it would be a status of the other device.
        raise TrustError(ReasonCode.WRONG_DEVICE, detail)
    seen = _seen(claim, payload_sha256, floors)
    if not seen and targets.is_expired(now):
        detail = (
            f"generation {claim.generation} expired at {targets.expires}, it is {now} here;"
            " sign it again, or set the clock"
        )
        # Never final: it depends on a clock, and a clock may have run ahead.
        raise claim.refuse(ReasonCode.EXPIRED, detail, final=False)
    try:
        desired = Desired.from_member(signed[MEMBER])
    except ContractError as error:
        raise claim.refuse(error.code, error.detail) from None
    files = _signed_files(desired, targets.targets, claim)
    return CheckedDesired(desired, claim, payload_sha256, files, targets.expires, seen)


def check_image_target(ref: FileRef, target: TargetFile | None, claim: Claim) -> TargetFile:
    """The image repository has to name the same length and hash as the director; returns that.

    Raises:
        TrustError: ``MIX_AND_MATCH``; not final while the file is absent, since a mirror may
            lag behind, and final when the two contradict each other.
    """
    if target is None:
        detail = f"{ref.path} is not in the image repository; publish the release, or wait"
        raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail, final=False)
    if not _same_file(ref, target):
        detail = f"{ref.path}: the director and the image repository name different bytes"
        raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail)
    return target


def check_manifest(slot_name: str, slot: SlotDesired, manifest: Manifest, claim: Claim) -> None:
    """The manifest has to describe exactly the files that the slot asks for.

    Raises:
        TrustError: ``MIX_AND_MATCH``.
    """
    if slot.release != manifest.release:
        detail = f"slot {slot_name} asks for {slot.release}, the manifest is {manifest.release}"
        raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail)
    # Delegations give a model's key its own folder only: a manifest that speaks for another
    # model could move that model's counter floor.
    folder = f"{manifest.release}/"
    for ref in (slot.manifest, *(r for c in slot.choices for r in (c.artifact, c.golden))):
        if not ref.path.startswith(folder):
            detail = f"slot {slot_name}: {ref.path} is not below {folder}"
            raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail)
    described = {(_ref(a), _ref(a.golden)) for a in manifest.artifacts}
    for choice in slot.choices:
        if (choice.artifact, choice.golden) not in described:
            detail = (
                f"the manifest of {manifest.release} does not describe {choice.artifact.path}"
                f" with {choice.golden.path}"
            )
            raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail)


def check_release(manifest: Manifest, claim: Claim, *, counter_floor: int, allow_dev: bool) -> None:
    """The release must not be one that is no longer allowed, nor made with throw-away keys.

    Raises:
        TrustError: ``BELOW_FLOOR`` or ``DEV_RELEASE``.
    """
    if manifest.counter < counter_floor:
        detail = (
            f"release {manifest.release} has counter {manifest.counter}, this device takes"
            f" {counter_floor} or later; roll out a newer release"
        )
        raise claim.refuse(ReasonCode.BELOW_FLOOR, detail)
    if manifest.dev and not allow_dev:
        detail = (
            f"release {manifest.release} is a development release; build it without --dev,"
            " or set trust.allow_dev on a test device"
        )
        raise claim.refuse(ReasonCode.DEV_RELEASE, detail)


def load_root(data: bytes) -> Metadata[Root]:
    """Read a root that is trusted because it was put on the device.

    Raises:
        TrustError: ``ROOT_CHAIN``; the file is no root, or does not even sign itself.
    """
    root = _parse_root(data)
    _check_root_signature(root.signed, root, "itself")
    return root


def rotate_root(current: Metadata[Root], data: bytes) -> Metadata[Root]:
    """Follow one step of a root chain: exactly the next version, signed by both.

    Raises:
        TrustError: ``ROOT_CHAIN``; never final, since another mirror may have the right one.
    """
    new = _parse_root(data)
    if new.signed.version != current.signed.version + 1:
        detail = (
            f"root {new.signed.version} can not follow root {current.signed.version};"
            " versions must not be skipped"
        )
        raise TrustError(ReasonCode.ROOT_CHAIN, detail, final=False)
    _check_root_signature(current.signed, new, f"root {current.signed.version}")
    _check_root_signature(new.signed, new, "itself")
    return new


def role_fingerprint(root: Root, role: str) -> str:
    """A short name for the keys of a role. It changes when, and only when, they are rotated."""
    keys = root.roles[role]
    text = f"{keys.threshold}:{','.join(sorted(keys.keyids))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_time(text: str) -> datetime | None:
    """An ISO 8601 time with a zone, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


def _verified(payload: bytes, root: Root) -> dict[str, Any]:
    """The signed part, once enough keys of the director vouch for exactly its bytes."""
    try:
        check_json(payload, max_bytes=MAX_DOCUMENT_BYTES)
        envelope = json.loads(payload)
    except ContractError as error:
        raise TrustError(error.code, error.detail) from None
    signed, signatures = _open(envelope)
    try:
        canonical = encode_canonical(signed)
        # A lone surrogate is JSON, but no text.
        message = (canonical or "").encode()
    except Exception as error:  # noqa: BLE001 - floats and lone surrogates raise whatever they like
        raise TrustError(ReasonCode.MALFORMED, f"not canonical JSON: {error}"[:1024]) from None
    try:
        root.verify_delegate(DIRECTOR_ROLE, message, signatures)
    except Exception as error:  # noqa: BLE001 - a key library must not decide how we fail
        detail = f"not signed by enough of the director's keys ({error})"
        raise TrustError(ReasonCode.SIGNATURE, detail[:1024]) from None
    return signed


def _open(envelope: object) -> tuple[dict[str, Any], dict[str, Signature]]:
    match envelope:
        case {"signed": dict(signed), "signatures": list(entries)}:
            pass
        case _:
            detail = "not a signed document: it needs 'signed' and 'signatures'"
            raise TrustError(ReasonCode.MALFORMED, detail)
    if len(entries) > MAX_SIGNATURES:
        detail = f"{len(entries)} signatures, at most {MAX_SIGNATURES} are looked at"
        raise TrustError(ReasonCode.MALFORMED, detail)
    signatures: dict[str, Signature] = {}
    for entry in entries:
        match entry:
            case {"keyid": str(keyid), "sig": str(value)} if keyid not in signatures:
                signatures[keyid] = Signature(keyid, value)
            case _:
                detail = "a signature needs 'keyid' and 'sig', and each key signs once"
                raise TrustError(ReasonCode.MALFORMED, detail)
    return signed, signatures


def _targets_of(signed: dict[str, Any]) -> Targets:
    try:
        if signed.get("_type") == Targets.type:
            return Targets.from_dict(json.loads(json.dumps(signed)))
    except Exception as error:  # noqa: BLE001 - from_dict raises whatever the content provokes
        detail = f"signed, but not targets metadata: {error!r}"
        raise TrustError(ReasonCode.MALFORMED, detail[:1024]) from None
    detail = f"signed, but of type {str(signed.get('_type'))[:64]!r} and not 'targets'"
    raise TrustError(ReasonCode.MALFORMED, detail)


class _Names(Document):
    """The part of a desired state that says who it is for."""

    device: Slug
    fleet: Slug
    deployment_id: DeploymentId


def _claim_of(signed: dict[str, Any], generation: int) -> Claim:
    member = signed.get(MEMBER)
    if not isinstance(member, str):
        detail = f"signed, but without a member {MEMBER!r} that holds a desired state"
        raise TrustError(ReasonCode.MALFORMED, detail)
    try:
        names = _Names.parse(member.encode())
    except ContractError as error:
        raise TrustError(error.code, error.detail) from None
    return Claim(Addressee(names.device, names.fleet), generation, names.deployment_id)


def _seen(claim: Claim, payload_sha256: str, floors: DirectorFloors) -> bool:
    if claim.generation < floors.generation:
        detail = f"generation {claim.generation} is older than the accepted {floors.generation}"
        raise claim.refuse(ReasonCode.STALE_GENERATION, detail)
    if claim.generation > floors.generation:
        return False
    if payload_sha256 == floors.payload_sha256:
        return True
    detail = (
        f"two different documents claim generation {claim.generation};"
        " the director's key may be in other hands"
    )
    raise claim.refuse(ReasonCode.EQUIVOCATION, detail)


def _signed_files(
    desired: Desired, targets: Mapping[str, TargetFile], claim: Claim
) -> dict[str, FileRef]:
    try:
        files = desired.files()
    except ContractError as error:
        raise claim.refuse(ReasonCode.MIX_AND_MATCH, error.detail) from None
    for path, ref in files.items():
        target = targets.get(path)
        if target is None or not _same_file(ref, target):
            detail = f"{path} is not in the signed targets with this length and hash"
            raise claim.refuse(ReasonCode.MIX_AND_MATCH, detail)
    return files


def _same_file(ref: FileRef, target: TargetFile) -> bool:
    return (target.length, target.hashes.get("sha256")) == (ref.length, ref.digest)


def _ref(file: Artifact | Golden) -> FileRef:
    return FileRef(path=file.path, digest=file.digest, length=file.length)


def _parse_root(data: bytes) -> Metadata[Root]:
    try:
        check_json(data, max_bytes=MAX_ROOT_BYTES)
        root = Metadata[Root].from_bytes(data)
    except Exception as error:  # noqa: BLE001 - from_bytes raises whatever the content provokes
        raise TrustError(
            ReasonCode.ROOT_CHAIN, f"not root metadata: {error}", final=False
        ) from None
    if not isinstance(root.signed, Root):
        detail = f"{root.signed.type} metadata where a root was expected"
        raise TrustError(ReasonCode.ROOT_CHAIN, detail, final=False)
    return root


def _check_root_signature(by: Root, root: Metadata[Root], whom: str) -> None:
    try:
        by.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except Exception as error:  # noqa: BLE001 - a key library must not decide how we fail
        detail = f"root {root.signed.version} is not signed by {whom} ({error})"
        raise TrustError(ReasonCode.ROOT_CHAIN, detail[:1024], final=False) from None
