"""Blobs and slot files: whole, or not there."""

import hashlib
import os
from pathlib import Path

import pytest

from stoker_agent.errors import ArtifactError
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import SlotFile
from support.documents import SPEC

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def test_a_finished_part_becomes_a_blob(store: BlobStore) -> None:
    """It can be read, not written, and publishing again finds it done."""
    store.part(DIGEST).write_bytes(DATA)
    path = store.publish(DIGEST, len(DATA))

    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o400
    assert not store.part(DIGEST).exists()
    assert store.publish(DIGEST, len(DATA)) == path
    assert store.missing_bytes(DIGEST, len(DATA)) == 0


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", DATA[::-1], None])
def test_other_bytes_are_never_published(store: BlobStore, data: bytes | None) -> None:
    """Short, long, changed or missing: refused, and the part is gone."""
    if data is not None:
        store.part(DIGEST).write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        store.publish(DIGEST, len(DATA))

    assert caught.value.code is ReasonCode.DIGEST_MISMATCH
    assert list(store.blobs.iterdir()) == []
    assert list(store.incoming.iterdir()) == []


def test_a_rotten_blob_is_found_out_and_removed(store: BlobStore) -> None:
    """So that it is fetched again instead of being loaded."""
    store.path(DIGEST).write_bytes(DATA[:-1] + b"?")

    assert not store.holds(DIGEST, len(DATA))
    assert not store.path(DIGEST).exists()


def test_garbage_is_what_nobody_names(store: BlobStore) -> None:
    """Blobs and parts of other digests go, the named ones stay."""
    store.path(DIGEST).write_bytes(DATA)
    store.path("0" * 64).write_bytes(b"old")
    store.part(DIGEST).write_bytes(b"again")
    store.part("1" * 64).write_bytes(b"given up")

    assert store.collect_garbage({DIGEST}) == ["0" * 64, "1" * 64 + ".part"]
    assert store.path(DIGEST).exists()
    assert store.part(DIGEST).exists()


def test_a_slot_file_is_read_back(tmp_path: Path) -> None:
    """And one that nobody can read does not hide the others."""
    slots = SlotFiles(tmp_path / "slots")
    file = SlotFile(slot="detector", current=SPEC, generation=3)
    slots.replace(file)
    (tmp_path / "slots" / "reader.json").write_bytes(b'{"slot": ')

    assert slots.read("detector") == file
    assert slots.read("reader") is None
    assert slots.read_all() == {"detector": file}
    slots.remove("detector")
    assert slots.read_all() == {}


def test_damaged_slot_files_are_read_from_their_copies_and_mended(tmp_path: Path) -> None:
    """Whichever of the two is cut off, lost or garbage; with both gone nothing is claimed."""
    slots = SlotFiles(tmp_path)
    file = SlotFile(slot="detector", current=SPEC, generation=2)
    slots.replace(file)
    path, copy = tmp_path / "detector.json", tmp_path / "detector.json.copy"
    for damaged in (path, copy):
        for harm in (lambda p: os.truncate(p, 50), Path.unlink, lambda p: p.write_bytes(b"\0")):
            harm(damaged)
            assert slots.read_all() == {"detector": file}
            assert not slots.unreadable()
            slots.mend()
            assert path.read_bytes() == copy.read_bytes() == file.encode()
    for both in (path, copy):
        os.truncate(both, 50)

    assert slots.read("detector") is None
    assert slots.unreadable()


def test_a_slot_that_is_removed_does_not_come_back(tmp_path: Path) -> None:
    """Its copy goes as well."""
    slots = SlotFiles(tmp_path)
    slots.replace(SlotFile(slot="detector", current=SPEC))
    slots.remove("detector")

    assert list(tmp_path.iterdir()) == []
