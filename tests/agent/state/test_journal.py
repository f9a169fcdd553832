"""The journal: what was promised is there after any end, and nothing is there twice."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_agent.core.deployment import Event, advance
from stoker_agent.core.record import Intent, Progress, Record
from stoker_agent.errors import JournalError
from stoker_agent.state.journal import MAX_BAD_DIGESTS, OUTBOX_LIMITS, Journal, Message
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.status import Phase
from support import journal_writer
from support.documents import DESIRED, DIGEST, MANIFEST, TIME
from support.small_disk import SmallDisk, mounted_small_disk

FINAL = Message("status/d-1", b"final", "final")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state.db")
    yield journal
    journal.close()


def accepted(generation: int = 1) -> Record:
    """A deployment that was just accepted."""
    intent = Intent(
        generation=generation,
        payload_sha256=DIGEST,
        desired=DESIRED,
        manifests={"detector": MANIFEST},
        accepted=TIME,
    )
    progress, _ = advance(Progress(phase=Phase.IDLE), Event.DESIRED)
    return Record(intent=intent, progress=progress)


def moved(record: Record, event: Event) -> Record:
    """The same deployment, one event later."""
    progress, _ = advance(record.progress, event)
    return record.model_copy(update={"progress": progress})


def reopened(journal: Journal) -> Journal:
    """What the next life finds."""
    path = journal._db.path  # noqa: SLF001 - there is no other way to know
    journal.close()
    return Journal(path)


def test_the_epoch_rises_with_every_start(journal: Journal) -> None:
    """And is durable before anything is said in it."""
    first = journal.begin_epoch()
    again = reopened(journal)
    second = again.begin_epoch()
    again.close()

    assert (first, second) == (1, 2)


def test_a_rebuilt_journal_does_not_begin_below_the_cloud(tmp_path: Path) -> None:
    """The first epoch comes from the clock, so that a device that lost its disk is heard."""
    journal = Journal(tmp_path / "state.db", first_epoch=1_800_000_000)
    epochs = [journal.begin_epoch(), journal.begin_epoch()]
    journal.close()

    assert epochs == [1_800_000_000, 1_800_000_001]


def test_floors_never_go_down(journal: Journal) -> None:
    """Whoever asks for less gets what was there."""
    journal.raise_floors({"image.root": 3, "clock": 100})
    journal.raise_floors({"image.root": 2, "clock": 101})
    again = reopened(journal)
    floors = again.floors()
    again.close()

    assert floors == {"image.root": 3, "clock": 101}
    assert again is not journal


def test_an_intent_comes_with_its_floors_and_its_status_or_not_at_all(journal: Journal) -> None:
    """One transaction: a generation that is accepted twice changes nothing the second time."""
    journal.accept(accepted(), {"image.targets": 5}, [Message("status/d-1", b"accepted")])
    with pytest.raises(Exception, match="UNIQUE"):
        journal.accept(accepted(), {"image.targets": 9}, [Message("status/d-1", b"again")])

    assert journal.floor("image.targets") == 5
    assert journal.generation() == (1, DIGEST)
    assert [entry.payload for entry in journal.pending(10)] == [b"accepted"]


def test_a_deployment_is_read_back_as_it_was_written(journal: Journal) -> None:
    """Everything a resumed deployment needs is in the journal."""
    record = moved(accepted(), Event.PLANNED)
    journal.accept(accepted(), {})
    journal.record(record)
    again = reopened(journal)
    found = again.unfinished()
    again.close()

    assert found == (record,)


def test_a_deployment_ends_exactly_once(journal: Journal) -> None:
    """A second end raises, and sends no second final status."""
    journal.accept(accepted(), {})
    ended = moved(accepted(), Event.REJECTED)
    journal.finish(ended, FINAL, {DIGEST: ReasonCode.GOLDEN_FAIL})
    with pytest.raises(ValueError, match="not running"):
        journal.finish(ended, FINAL)

    assert journal.unfinished() == ()
    assert journal.history()[0].progress.outcome is Outcome.REJECTED
    assert journal.bad_digests() == {DIGEST: ReasonCode.GOLDEN_FAIL}
    assert [entry.payload for entry in journal.pending(10)] == [b"final"]


def test_a_message_waits_until_it_was_delivered(journal: Journal) -> None:
    """A restart in between forgets nothing, and the order stays."""
    for payload in (b"1", b"2", b"3"):
        journal.enqueue("telemetry", payload)
    journal.delivered(journal.pending(1)[0].id)
    again = reopened(journal)
    waiting = [entry.payload for entry in again.pending(10)]
    again.close()

    assert waiting == [b"2", b"3"]


def test_telemetry_is_bounded_and_finals_are_not(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long time offline costs the oldest windows, never a final status."""
    monkeypatch.setitem(OUTBOX_LIMITS, "telemetry", 3)
    for number in range(5):
        journal.enqueue("final", str(number).encode(), kind="final")
        journal.enqueue("telemetry", str(number).encode())
    waiting = [(entry.topic, int(entry.payload)) for entry in journal.pending(100)]

    assert [n for topic, n in waiting if topic == "telemetry"] == [2, 3, 4]
    assert [n for topic, n in waiting if topic == "final"] == [0, 1, 2, 3, 4]


def test_the_memory_of_bad_digests_is_bounded(journal: Journal) -> None:
    """The newest are kept, as many as a report can name."""
    for number in range(MAX_BAD_DIGESTS + 5):
        journal.accept(accepted(number + 1), {})
        ended = moved(accepted(number + 1), Event.FAILED)
        journal.finish(ended, FINAL, {f"{number:064x}": ReasonCode.GOLDEN_FAIL})
    bad = journal.bad_digests()

    assert len(bad) == MAX_BAD_DIGESTS
    assert f"{MAX_BAD_DIGESTS + 4:064x}" in bad
    assert f"{0:064x}" not in bad


def test_wishes_of_another_process_are_seen(journal: Journal, tmp_path: Path) -> None:
    """The command line writes, the agent reads; each request is taken once."""
    other = Journal(tmp_path / "state.db")
    other.set_held(held=True)
    other.request("rollback")
    other.close()

    assert journal.held()
    assert journal.take_requests() == ("rollback",)
    assert journal.take_requests() == ()


@pytest.mark.parametrize("size", [100, 4096, 20_000])
def test_a_torn_journal_is_set_aside_and_rebuilt(tmp_path: Path, size: int) -> None:
    """Garbage in place of the file costs memory, never a crash loop."""
    path = tmp_path / "state.db"
    path.write_bytes(random.Random(size).randbytes(size))  # noqa: S311 - garbage
    journal = Journal(path)
    journal.begin_epoch()
    journal.close()

    assert journal.set_aside is not None
    assert journal.set_aside.stat().st_size == size
    assert journal.set_aside.parent == tmp_path


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    """A file that was created and never written holds nothing to set aside."""
    (tmp_path / "state.db").touch()
    journal = Journal(tmp_path / "state.db")
    epoch = journal.begin_epoch()
    journal.close()

    assert epoch == 1
    assert journal.set_aside is None


def test_a_journal_with_a_rotten_page_is_found_out(tmp_path: Path) -> None:
    """Bit rot in the middle of the file is detected when it is opened."""
    path = tmp_path / "state.db"
    journal = Journal(path)
    for number in range(200):
        journal.enqueue("telemetry", bytes(1000) + str(number).encode())
    journal.close()
    data = bytearray(path.read_bytes())
    data[8192:12288] = os.urandom(4096)
    path.write_bytes(bytes(data))
    again = Journal(path)
    again.close()

    assert again.set_aside is not None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted_small_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk_does_not_stop_the_agent_from_remembering(disk: SmallDisk) -> None:
    """The reserve is given up for the end of a deployment, and put aside again later."""
    journal = Journal(disk.path / "state.db")
    journal.accept(accepted(), {})
    disk.fill(journal=disk.path / "state.db")
    journal.finish(moved(accepted(), Event.FAILED), FINAL)
    assert not (disk.path / "reserve").exists()
    assert not journal.reserve.fill()
    disk.make_room()
    assert journal.reserve.fill()
    again = reopened(journal)
    ended = again.unfinished()
    again.close()

    assert ended == ()
    assert (disk.path / "reserve").exists()


def test_telemetry_does_not_use_up_what_state_will_need(disk: SmallDisk) -> None:
    """It is refused on a full disk; the same journal works again once there is room."""
    journal = Journal(disk.path / "state.db")
    disk.fill(journal=disk.path / "state.db")
    with pytest.raises(JournalError) as refused:
        journal.enqueue("telemetry", bytes(4096))
    assert (disk.path / "reserve").exists()
    assert journal.pending(10) == []
    disk.make_room()
    journal.enqueue("telemetry", b"later")
    kept = [entry.payload for entry in journal.pending(10)]
    journal.close()

    assert refused.value.code is ReasonCode.DISK_SPACE
    assert kept == [b"later"]


def test_a_journal_opens_on_a_full_disk(disk: SmallDisk) -> None:
    """The reserve is for this, too: an agent that starts has to write its epoch."""
    Journal(disk.path / "state.db").close()
    disk.fill()
    journal = Journal(disk.path / "state.db")
    epoch = journal.begin_epoch()
    journal.close()

    assert epoch == 1


def test_a_killed_writer_keeps_every_promise(tmp_path: Path) -> None:
    """Kill -9 at random moments: epochs rise, nothing promised is lost, one final status each."""
    path = tmp_path / "state.db"
    rng = random.Random(7)  # noqa: S311 - not a secret
    promised: set[int] = set()
    for life in range(1, 13):
        lines = killed_after(path, rng.randint(1, 40))
        assert lines[0] == f"epoch {life}"
        promised |= {int(line.split()[1]) for line in lines if line.startswith("finished")}
    journal = Journal(path)
    finals = [int(e.payload) for e in journal.pending(10_000) if e.topic == "final"]
    running = [record.generation for record in journal.unfinished()]
    highest = journal.generation()[0]
    assert journal.floor("image.targets") == highest
    journal.close()

    assert journal.set_aside is None
    assert len(finals) == len(set(finals))
    assert promised <= set(finals)
    assert sorted(finals + running) == list(range(1, highest + 1))


def killed_after(path: Path, lines: int) -> list[str]:
    """What a writer said before it was killed in the middle of the next step."""
    writer = subprocess.Popen(
        [sys.executable, journal_writer.__file__, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(journal_writer.__file__).parents[1])},
    )
    assert writer.stdout is not None
    try:
        said = [writer.stdout.readline().strip() for _ in range(lines)]
    finally:
        writer.kill()
        rest = writer.stdout.read()
        writer.stdout.close()
        writer.wait()
    return said + rest.splitlines()
