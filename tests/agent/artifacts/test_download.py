"""Downloads from a server that cannot be trusted."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_agent.artifacts.download import Downloader, DownloadLimits, Transfer
from stoker_agent.errors import ArtifactError
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef
from support.http_server import CHUNK_BYTES, Misbehaviour, Repository, serving
from support.waiting import wait_until

DATA = random.Random(3).randbytes(20 * CHUNK_BYTES + 123)  # noqa: S311 - test data
DIGEST = hashlib.sha256(DATA).hexdigest()
FILE = FileRef(path="photos/2.0.0/vnni.onnx", digest=DIGEST, length=len(DATA))
LIMITS = DownloadLimits(
    connect_s=5.0, read_s=5.0, backoff_base_s=0.001, backoff_cap_s=0.01, idle_attempts=3
)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "repository" / "targets" / "photos" / "2.0.0"
    folder.mkdir(parents=True)
    (folder / f"{DIGEST}.vnni.onnx").write_bytes(DATA)
    with serving(tmp_path / "repository") as repository:
        yield repository


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "state")


@pytest.fixture
def downloader(repository: Repository, store: BlobStore) -> Downloader:
    return Downloader(repository.url, store, limits=LIMITS, rng=random.Random(1))  # noqa: S311 - jitter


def transfer(deadline_s: float = 30.0, max_bytes_per_s: int | None = None) -> Transfer:
    """One with time enough."""
    return Transfer(threading.Event(), time.monotonic() + deadline_s, max_bytes_per_s)


def refused(downloader: Downloader, code: ReasonCode, one: Transfer | None = None) -> str:
    """Fetch, and see it fail."""
    with pytest.raises(ArtifactError) as caught:
        downloader.fetch(FILE, one or transfer())
    assert caught.value.code is code, caught.value
    return caught.value.detail


def test_a_file_is_fetched_from_its_signed_place(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """The name carries the digest, so that a mirror can keep every version."""
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA
    assert repository.requests == [(f"targets/photos/2.0.0/{DIGEST}.vnni.onnx", None)]


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_cut_anywhere_is_resumed(
    downloader: Downloader, repository: Repository, store: BlobStore, sixteenth: int
) -> None:
    """What arrived is not fetched again."""
    repository.bad.cut_after = [len(DATA) * sixteenth // 16]
    one = transfer()
    downloader.fetch(FILE, one)

    assert store.part(DIGEST).read_bytes() == DATA
    assert one.received_bytes == len(DATA)


def test_many_cuts_are_survived(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """Progress resets the patience: only attempts that bring nothing count."""
    repository.bad.cut_after = [CHUNK_BYTES] * 15
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA


def test_a_download_goes_on_after_a_restart(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """The part on the disk is all that is needed."""
    store.part(DIGEST).write_bytes(DATA[:100_000])
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA
    assert repository.requests[0][1] == "bytes=100000-"


def test_what_a_power_cut_tore_is_fetched_again(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """A part with zeros where data should be is found out at the end, and begun again."""
    store.part(DIGEST).write_bytes(DATA[:50_000] + bytes(50_000))
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA
    assert [wanted for _, wanted in repository.requests] == ["bytes=100000-", None]


def test_a_blob_that_is_there_is_not_fetched(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """The store is asked first."""
    store.path(DIGEST).write_bytes(DATA)
    downloader.fetch(FILE, transfer())

    assert repository.requests == []


@pytest.mark.parametrize(
    "bad",
    [
        Misbehaviour(ignore_range=True),
        Misbehaviour(refuse_range=True),
    ],
)
def test_a_server_without_ranges_sends_it_all_again(
    downloader: Downloader, repository: Repository, store: BlobStore, bad: Misbehaviour
) -> None:
    """200 or 416 for a range both end in the right bytes."""
    store.part(DIGEST).write_bytes(DATA[:100_000])
    repository.bad = bad
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 0-{len(DATA) - 1}/{len(DATA)}",
        f"bytes 100000-{len(DATA) - 2}/{len(DATA)}",
        f"bytes 100000-{len(DATA) - 1}/{len(DATA) + 1}",
        "items 1-2/3",
    ],
)
def test_a_range_that_was_not_asked_for_is_not_written(
    downloader: Downloader, repository: Repository, store: BlobStore, content_range: str
) -> None:
    """A wrong answer leaves the part as it was."""
    store.part(DIGEST).write_bytes(DATA[:100_000])
    repository.bad.content_range = content_range
    refused(downloader, ReasonCode.NETWORK)

    assert store.part(DIGEST).read_bytes() == DATA[:100_000]


@pytest.mark.parametrize("status", [301, 302, 403, 404, 500, 503])
def test_an_answer_that_is_no_file_is_tried_a_few_times(
    downloader: Downloader, repository: Repository, status: int
) -> None:
    """A redirect is not followed: a file is at its signed place or nowhere."""
    repository.bad.status = status
    repository.bad.location = f"{repository.url}/elsewhere"
    detail = refused(downloader, ReasonCode.NETWORK)

    assert str(status) in detail
    assert len(repository.requests) == LIMITS.idle_attempts
    assert all("elsewhere" not in path for path, _ in repository.requests)


def test_other_bytes_of_the_same_length_are_refused(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """The digest decides, and nothing of them is kept."""
    repository.bad.replace_with = DATA[:-1] + bytes([DATA[-1] ^ 1])
    refused(downloader, ReasonCode.DIGEST_MISMATCH)

    assert not store.part(DIGEST).exists()


def test_a_file_that_changed_between_two_ranges_is_refused_in_the_end(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """A mix is begun again once, and a second mismatch is final."""
    store.part(DIGEST).write_bytes(DATA[:100_000])
    repository.bad.replace_with = bytes(len(DATA))
    refused(downloader, ReasonCode.DIGEST_MISMATCH)

    assert [wanted for _, wanted in repository.requests] == ["bytes=100000-", None]


def test_a_wrong_length_is_refused_before_a_byte_is_read(
    downloader: Downloader, repository: Repository
) -> None:
    """The signed length is known beforehand."""
    repository.bad.replace_with = DATA + b"x"
    detail = refused(downloader, ReasonCode.DIGEST_MISMATCH)

    assert str(len(DATA)) in detail


def test_an_endless_answer_is_read_to_the_signed_length_and_no_further(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """The disk can not be filled by whoever owns the mirror."""
    repository.bad.endless = True
    downloader.fetch(FILE, transfer())

    assert store.part(DIGEST).read_bytes() == DATA


def test_a_compressed_answer_is_refused(downloader: Downloader, repository: Repository) -> None:
    """Nothing is ever unpacked on the way."""
    repository.bad.content_encoding = "gzip"

    assert "gzip" in refused(downloader, ReasonCode.NETWORK)


def test_nobody_there_is_a_network_failure(store: BlobStore) -> None:
    """After a few attempts, with the address in the detail."""
    downloader = Downloader("http://127.0.0.1:1", store, limits=LIMITS)

    assert "127.0.0.1" in refused(downloader, ReasonCode.NETWORK)


def test_a_deadline_ends_a_slow_download(
    downloader: Downloader, repository: Repository, store: BlobStore
) -> None:
    """What arrived until then stays for the next attempt."""
    refused(downloader, ReasonCode.PHASE_DEADLINE, transfer(0.3, max_bytes_per_s=CHUNK_BYTES))

    assert 0 < store.part(DIGEST).stat().st_size < len(DATA)


def test_a_download_can_be_stopped(downloader: Downloader, repository: Repository) -> None:
    """By another thread, for instance because a newer release is wanted."""
    one = transfer(max_bytes_per_s=CHUNK_BYTES)
    failures: list[ArtifactError] = []

    def fetch() -> None:
        try:
            downloader.fetch(FILE, one)
        except ArtifactError as error:
            failures.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    wait_until(lambda: one.received_bytes, what="the first bytes")
    one.stop.set()
    thread.join(10)

    assert not thread.is_alive()
    assert failures[0].code is ReasonCode.NETWORK


def test_a_download_that_does_not_fit_is_not_begun(downloader: Downloader) -> None:
    """The reserve and five percent have to be left."""
    enough = int(len(DATA) * 1.05) + LIMITS.reserve_bytes
    downloader.check_disk([FILE], lambda _: enough)
    with pytest.raises(ArtifactError) as caught:
        downloader.check_disk([FILE], lambda _: enough - 1)

    assert caught.value.code is ReasonCode.DISK_SPACE
