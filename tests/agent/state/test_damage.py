"""A journal that is really damaged: what must not be lost is not, and nothing else stands still."""

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker_agent.core.deployment import Event, advance
from stoker_agent.core.record import Intent, Progress, Record
from stoker_agent.state.journal import Journal, Message
from stoker_contract.codes import ReasonCode
from stoker_contract.status import Phase
from support.documents import DESIRED, DIGEST, MANIFEST, TIME

FLOORS = {"image.targets": 7, "counter.digits": 3, "clock": 1_750_000_000}
BAD = {"ab" * 32: ReasonCode.GOLDEN_FAIL}
PAGE = 4096


def written(folder: Path) -> Path:
    """A journal that knows something, closed; returns its path."""
    path = folder / "state.db"
    journal = Journal(path)
    journal.begin_epoch()
    intent = Intent(
        generation=5,
        payload_sha256=DIGEST,
        desired=DESIRED,
        manifests={"detector": MANIFEST},
        accepted=TIME,
    )
    progress, _ = advance(Progress(phase=Phase.IDLE), Event.DESIRED)
    record = Record(intent=intent, progress=progress)
    journal.accept(record, FLOORS)
    ended, _ = advance(record.progress, Event.REJECTED)
    final = Message("status/d-1", b"final", "final")
    journal.finish(record.model_copy(update={"progress": ended}), final, BAD)
    journal.set_held(held=True)
    journal.keep_essentials()
    journal.close()
    return path


def nothing_essential_is_lost(path: Path) -> None:
    """The next life begins above the last one, and believes no less than it."""
    journal = Journal(path)
    epoch = journal.begin_epoch()
    known = (journal.generation(), journal.bad_digests(), journal.held())
    floors = journal.floors()
    journal.close()

    assert epoch > 1
    assert known == ((5, DIGEST), BAD, True)
    assert all(floors[name] >= value for name, value in FLOORS.items())


def zero_the_header(path: Path) -> None:
    """As a disk does that lost its first sector."""
    with path.open("r+b") as file:
        file.write(bytes(100))


def lose_pages(path: Path) -> None:
    """Noise where most of the tables were."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(random.Random(3).randbytes(size - PAGE))  # noqa: S311 - noise


def spoil_a_record(path: Path) -> None:
    """Rot inside a value: SQLite does not look there."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE deployments SET intent = x'7b'")
    connection.close()


def forge_a_generation(path: Path) -> None:
    """A number that nothing else knows of."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE accepted SET generation = 4096 + generation")
    connection.close()


def spoil_a_reason(path: Path) -> None:
    """A code that there is none of."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE bad_digests SET code = 'GOLDEN_FAIM'")
    connection.close()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, PAGE + 100),
        lambda path: os.truncate(path, path.stat().st_size - PAGE),
        Path.unlink,
        zero_the_header,
        lose_pages,
        spoil_a_record,
        forge_a_generation,
        spoil_a_reason,
    ],
    ids=[
        *("emptied", "cut-in-a-page", "last-page-lost", "gone", "header", "pages"),
        *("record", "generation", "reason"),
    ],
)
def test_a_damaged_journal_loses_nothing_essential(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Floors, bad digests, the accepted document, the epoch and a hold come from the other file."""
    path = written(tmp_path)
    harm(path)

    nothing_essential_is_lost(path)


def test_bits_that_flip_lose_nothing_essential(tmp_path: Path) -> None:
    """A hundred of them, one at a time, anywhere in the file."""
    path = written(tmp_path)
    good, essentials = path.read_bytes(), (tmp_path / "essentials.json").read_bytes()
    rng = random.Random(11)  # noqa: S311 - which bits
    for _ in range(100):
        at = rng.randrange(len(good))
        flipped = bytearray(good)
        flipped[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(flipped))
        (tmp_path / "essentials.json").write_bytes(essentials)

        nothing_essential_is_lost(path)


@pytest.mark.parametrize("at", [0, 30, 70, 200])
def test_damage_to_the_other_file_is_noticed_and_mended(tmp_path: Path, at: int) -> None:
    """It is believed only if its bytes are what was written; the journal is the truth."""
    path = written(tmp_path)
    other = tmp_path / "essentials.json"
    data = bytearray(other.read_bytes())
    data[at] ^= 0x10
    other.write_bytes(bytes(data))
    nothing_essential_is_lost(path)
    path.unlink()

    nothing_essential_is_lost(path)


def test_with_both_files_lost_the_device_begins_anew(tmp_path: Path) -> None:
    """It starts, as one that was just provisioned: with the roots that were put on it."""
    path = written(tmp_path)
    os.truncate(path, 0)
    os.truncate(tmp_path / "essentials.json", 10)
    journal = Journal(path, first_epoch=1_800_000_000)
    known = (journal.begin_epoch(), journal.generation(), journal.floors(), journal.bad_digests())
    journal.close()

    assert known == (1_800_000_000, (0, ""), {}, {})


def test_what_was_blessed_stays_blessed(tmp_path: Path) -> None:
    """The other file follows: an artifact that has proved itself is not bad after a damage."""
    path = written(tmp_path)
    journal = Journal(path)
    journal.bless(next(iter(BAD)))
    journal.close()
    path.unlink()
    again = Journal(path)
    again.begin_epoch()
    bad = again.bad_digests()
    again.close()

    assert bad == {}


def test_a_rebuilt_journal_carries_out_what_it_only_knows_the_number_of(tmp_path: Path) -> None:
    """The accepted document is not taken for done when nobody remembers what became of it."""
    path = written(tmp_path)
    journal = Journal(path)
    before = journal.knows(DIGEST)
    journal.close()
    path.unlink()
    again = Journal(path)
    again.begin_epoch()
    after = (again.knows(DIGEST), again.generation())
    again.close()

    assert (before, after) == (True, (False, (5, DIGEST)))
