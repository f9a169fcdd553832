"""Cumulative counts of the server become windows in the outbox."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_agent.errors import ControlError, JournalError
from stoker_agent.state.journal import Journal
from stoker_agent.telemetry.uplink import Uplink, windows
from stoker_contract.codes import ReasonCode
from stoker_contract.control import TelemetrySnapshot
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.histogram import Histogram, HistogramData
from stoker_contract.telemetry import HostFigures, LatencyWindow, Telemetry
from stoker_contract.topics import DeviceTopics

TOPICS = DeviceTopics("demo", "edge-1")
DIGEST = "ab" * 32


def engine(
    values_ns: Sequence[int], *, slot: str = "detector", digest: str = DIGEST
) -> LatencyWindow:
    """What a server says of an engine that took these times."""
    data = Histogram.of(values_ns).data()
    return LatencyWindow(
        slot="detector",
        digest=digest,
        total=data,
        compute=data,
        queue=data,
        requests=len(values_ns),
    )


def snapshot(*engines: LatencyWindow, server: str = "server-1") -> TelemetrySnapshot:
    """A snapshot of a server."""
    return TelemetrySnapshot(server_id=server, rss_bytes=77, engines=engines)


@dataclass
class ScriptedServer:
    """A server that says one thing after the other."""

    answers: list[TelemetrySnapshot | None] = field(default_factory=list)

    async def telemetry(self) -> TelemetrySnapshot:
        """The next answer; None stands for a server that is away."""
        answer = self.answers.pop(0)
        if answer is None:
            raise ControlError(ReasonCode.SERVER_UNAVAILABLE, "no server")
        return answer


class FixedClock:
    """Time that stands still."""

    def unix_s(self) -> float:
        """The time of day."""
        return 1_750_000_000.0

    def monotonic_s(self) -> float:
        """The time that passed."""
        return 0.0


def collect(folder: Path, *answers: TelemetrySnapshot | None) -> list[Telemetry]:
    """What lies in a real outbox after a server has said these things."""

    async def story() -> None:
        for _ in answers:
            await uplink.collect()

    journal = Journal(folder / "state.db")
    try:
        journal.begin_epoch()
        uplink = Uplink(
            ScriptedServer(list(answers)),
            journal,
            TOPICS,
            60.0,
            host=lambda rss_bytes: HostFigures(server_rss_bytes=rss_bytes),
            clock=FixedClock(),
        )
        asyncio.run(story())
        entries = journal.pending(100)
        assert {entry.topic for entry in entries} <= {TOPICS.telemetry}
        assert all(len(entry.payload) <= MAX_DOCUMENT_BYTES for entry in entries)
        return [Telemetry.parse(entry.payload) for entry in entries]
    finally:
        journal.close()


@settings(deadline=None)
@given(
    first=st.lists(st.integers(0, 10**10), max_size=40),
    second=st.lists(st.integers(0, 10**10), min_size=1, max_size=40),
)
def test_a_window_is_exactly_what_was_recorded_in_it(first: list[int], second: list[int]) -> None:
    """The difference of two snapshots is the histogram of what came between them."""
    (window,) = windows(snapshot(engine(first)), snapshot(engine(first + second)))

    assert window.total == Histogram.of(second).data()
    assert window.requests == len(second)


def test_windows_go_into_the_outbox(tmp_path: Path) -> None:
    """The first window is everything so far, the next what came since, in order of sequence."""
    one, two = collect(tmp_path, snapshot(engine([5])), snapshot(engine([5, 9, 9])))

    assert [w.requests for w in one.engines] == [1]
    assert [w.requests for w in two.engines] == [2]
    assert (one.epoch, one.seq) < (two.epoch, two.seq)
    assert two.host.server_rss_bytes == 77


def test_an_idle_engine_takes_no_space(tmp_path: Path) -> None:
    """Without a request there is no histogram to send, but still a sign of life."""
    _, idle = collect(tmp_path, snapshot(engine([5])), snapshot(engine([5])))

    assert idle.engines == ()


def test_a_server_that_was_started_again_counts_from_zero(tmp_path: Path) -> None:
    """A new server_id means that everything it says is new, even if the counts fit."""
    _, after = collect(
        tmp_path, snapshot(engine([5, 5])), snapshot(engine([5, 5, 5]), server="server-2")
    )

    assert after.engines[0].requests == 3


def test_an_engine_that_was_loaded_again_counts_from_zero(tmp_path: Path) -> None:
    """Counts that went down are those of another engine with the same digest."""
    _, after = collect(tmp_path, snapshot(engine([5, 5, 5])), snapshot(engine([9])))

    assert after.engines == (engine([9]),)


def test_two_versions_are_told_apart(tmp_path: Path) -> None:
    """During an exchange the old and the new engine have a window each."""
    new = "cd" * 32
    _, both = collect(
        tmp_path,
        snapshot(engine([5])),
        snapshot(engine([5, 6]), engine([3, 3, 3], digest=new)),
    )

    assert [(w.digest, w.requests) for w in both.engines] == [(DIGEST, 1), (new, 3)]


def test_a_server_that_is_away_loses_nothing(tmp_path: Path) -> None:
    """The window after a gap spans the gap."""
    _, gap, after = collect(tmp_path, snapshot(engine([5])), None, snapshot(engine([5, 6, 7])))

    assert gap.engines == ()
    assert after.engines[0].requests == 2


@dataclass
class FullDisk:
    """A spool without room for a while.

    Attributes:
        refusals: how often it still refuses.
        kept: what it took.
    """

    refusals: int
    kept: list[bytes] = field(default_factory=list)

    def enqueue(self, _topic: str, payload: bytes, /) -> None:
        """Refuse, or keep."""
        if self.refusals:
            self.refusals -= 1
            raise JournalError(ReasonCode.DISK_SPACE, "the disk is full")
        self.kept.append(payload)

    def epoch(self) -> int:
        """The epoch."""
        return 1

    def next_seq(self) -> int:
        """A number."""
        return len(self.kept)


def test_a_full_disk_makes_one_long_window_of_several() -> None:
    """What was counted while nothing could be kept is told afterwards, and counted once."""
    answers = [snapshot(engine([5])), snapshot(engine([5, 6])), snapshot(engine([5, 6, 7]))]
    spool = FullDisk(refusals=2)
    uplink = Uplink(
        ScriptedServer([*answers]),
        spool,
        TOPICS,
        60.0,
        host=lambda rss_bytes: HostFigures(server_rss_bytes=rss_bytes),
        clock=FixedClock(),
    )

    async def story() -> None:
        for _ in answers:
            await uplink.collect()

    asyncio.run(story())
    (told,) = [Telemetry.parse(payload) for payload in spool.kept]

    assert told.engines[0].total == Histogram.of([5, 6, 7]).data()


def test_large_telemetry_is_split(tmp_path: Path) -> None:
    """Each message stays below the size limit, and together they are complete."""
    wide = HistogramData(offset=0, counts=(10**6,) * 1_200, sum_ns=1)
    engines = [
        LatencyWindow(slot=f"s{n}", digest=DIGEST, total=wide, compute=wide, requests=n + 1)
        for n in range(9)
    ]

    parts = collect(tmp_path, snapshot(*engines))

    assert len(parts) > 1
    assert [w.slot for part in parts for w in part.engines] == [f"s{n}" for n in range(9)]
    assert len({part.seq for part in parts}) == len(parts)


def test_a_running_uplink_makes_windows_by_itself(tmp_path: Path) -> None:
    """Every interval there is a window, and somebody is told that it is there."""

    async def story() -> None:
        told = asyncio.Event()
        clock = RunningClock()
        uplink = Uplink(
            ScriptedServer([snapshot(engine([5]))] * 3),
            journal,
            TOPICS,
            0.0,
            host=lambda rss_bytes: HostFigures(server_rss_bytes=rss_bytes),
            clock=clock,
            on_enqueued=told.set,
        )
        task = asyncio.create_task(uplink.run())
        async with asyncio.timeout(10):
            await told.wait()
        task.cancel()
        assert journal.depth() >= 1

    class RunningClock(FixedClock):
        def monotonic_s(self) -> float:
            return asyncio.get_running_loop().time() * 100  # a hurried clock

    journal = Journal(tmp_path / "state.db")
    try:
        asyncio.run(story())
    finally:
        journal.close()
