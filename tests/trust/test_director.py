"""The director's documents, checked with python-tuf as a device would."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets

from stoker_contract.codes import ReasonCode
from stoker_contract.desired import MEMBER, Choice, Desired, FileRef
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_trust.director import Director
from stoker_trust.errors import TrustError
from stoker_trust.initialise import init_dev
from stoker_trust.keys import Keyring
from support.documents import DIGEST, SLOT_DESIRED

DESIRED = Desired(
    device="edge-1",
    fleet="demo",
    deployment_id="r1-abcd",
    issued="2026-01-02T03:04:05Z",
    slots={"detector": SLOT_DESIRED},
)


def director_root(folder: Path) -> Root:
    root = Metadata[Root].from_bytes((folder / "director" / "1.root.json").read_bytes()).signed
    assert isinstance(root, Root)
    return root


def verify(root: Root, data: bytes) -> Targets:
    metadata = Metadata[Targets].from_bytes(data)
    root.verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)
    assert isinstance(metadata.signed, Targets)
    return metadata.signed


def test_a_device_can_verify_what_the_director_signs(
    folder: Path, keyring: Keyring, now: datetime
) -> None:
    """Signature, generation, expiry, every file and the document itself arrive."""
    data = Director(keyring).sign(DESIRED, 7, now, lifetime=timedelta(days=3))

    signed = verify(director_root(folder), data)

    assert signed.version == 7
    assert signed.expires == (now + timedelta(days=3)).replace(microsecond=0)
    assert Desired.from_member(signed.unrecognized_fields[MEMBER]) == DESIRED
    named = {path: (f.length, f.hashes["sha256"]) for path, f in signed.targets.items()}
    assert named == {path: (f.length, f.digest) for path, f in DESIRED.files().items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"edge-1", b"edge-2"), (b'"version":7', b'"version":8'), (DIGEST[:20].encode(), b"0" * 20)],
)
def test_a_changed_document_does_not_verify(
    folder: Path, keyring: Keyring, now: datetime, old: bytes, new: bytes
) -> None:
    """Another device, another generation or another file: the signature says no."""
    data = Director(keyring).sign(DESIRED, 7, now)
    assert old in data

    with pytest.raises(UnsignedMetadataError):
        verify(director_root(folder), data.replace(old, new))


def test_another_fleets_director_does_not_verify(
    tmp_path: Path, folder: Path, keyring: Keyring, now: datetime
) -> None:
    """A document signed with another fleet's keys is unsigned here."""
    other, _ = init_dev(tmp_path / "other-keys", tmp_path / "other-repository", now)

    with pytest.raises(UnsignedMetadataError):
        verify(director_root(folder), Director(other).sign(DESIRED, 7, now))


def test_the_anchor_of_the_devices_is_the_published_root(folder: Path, keyring: Keyring) -> None:
    """What is copied to devices is byte for byte the first root of each repository."""
    for name, published in (("image-root", "metadata"), ("director-root", "director")):
        anchor = keyring.anchor(name)  # type: ignore[arg-type]  # the two literals
        assert anchor.read_bytes() == (folder / published / "1.root.json").read_bytes()


def test_a_document_that_no_message_can_hold_is_refused(keyring: Keyring, now: datetime) -> None:
    """Sixteen slots with eight long choices are refused before they are published."""
    choices = tuple(
        Choice(
            artifact=FileRef(path=f"photos/1/{'a' * 200}{n}.onnx", digest=DIGEST, length=1),
            golden=FileRef(path=f"photos/1/{'a' * 200}{n}.npz", digest=DIGEST, length=1),
        )
        for n in range(8)
    )
    slot = SLOT_DESIRED.model_copy(update={"choices": choices})
    desired = DESIRED.model_copy(update={"slots": {f"slot-{n}": slot for n in range(16)}})

    with pytest.raises(TrustError) as refused:
        Director(keyring).sign(desired, 1, now)

    assert refused.value.code is ReasonCode.TOO_LARGE


def test_a_document_fits_many_times_into_a_message(keyring: Keyring, now: datetime) -> None:
    """An ordinary desired state is compact JSON, far below the limit."""
    data = Director(keyring).sign(DESIRED, 1, now)

    assert len(data) < MAX_DOCUMENT_BYTES / 16
    assert json.loads(data)["signed"]["_type"] == "targets"
