"""The line between nodes: it delays, loses and stops what it is told to, and nothing else."""

import os
import random
import socket
from collections.abc import Iterator

import pytest

from e2e.netem import Condition, Direction
from support.waiting import wait_until

FRAMES = tuple(f"frame {number}".encode() for number in range(20))


class Line:
    """A direction between two sockets: frames go in at one end and come out at the other."""

    def __init__(self) -> None:
        self._in, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sink, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sockets = (self._in, source, sink, self._out)
        for one in self._sockets:
            one.setblocking(False)
        self.direction = Direction(source.fileno(), sink.fileno(), random.Random(1))  # noqa: S311  a test

    def send(self, condition: Condition) -> float | None:
        """Put all frames in. Returns seconds until there is more to hand over."""
        self.direction.condition = condition
        for frame in FRAMES:
            self._in.send(frame)
        self.direction.take()
        return self.direction.give()

    def arrived(self) -> list[bytes]:
        """What came out."""
        found = []
        while True:
            try:
                found.append(os.read(self._out.fileno(), 100))
            except BlockingIOError:
                return found

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_a_good_line_passes_everything_on_in_order(line: Line) -> None:
    """Nothing is changed, nothing waits."""
    assert line.send(Condition()) is None
    assert line.arrived() == list(FRAMES)


def test_a_far_line_holds_frames_back(line: Line) -> None:
    """What is delayed by an hour is not there now, and is due in about an hour."""
    due_s = line.send(Condition(delay_ms=3_600_000))
    assert due_s is not None
    assert due_s > 3000
    assert line.arrived() == []


def test_a_lossy_line_loses_about_its_share(line: Line) -> None:
    """Some frames are lost, the others keep their order."""
    line.send(Condition(loss=0.5))
    arrived = line.arrived()
    assert 0 < len(arrived) < len(FRAMES)
    assert arrived == [frame for frame in FRAMES if frame in arrived]


def test_a_cut_line_passes_nothing_on(line: Line) -> None:
    """A cut is a cut, also for what is on its way when it happens."""
    assert line.send(Condition(cut=True)) is None
    line.send(Condition(rate_kbit=1))
    line.arrived()
    line.direction.condition = Condition(cut=True)
    wait_until(lambda: line.direction.give() is None, what="nothing is on its way any more")
    assert line.arrived() == []


def test_a_slow_line_spaces_frames(line: Line) -> None:
    """At one bit a millisecond a frame of some bytes has to wait for those before it."""
    due_s = line.send(Condition(rate_kbit=1))
    assert due_s is not None
    assert len(line.arrived()) < len(FRAMES)


def test_a_line_with_a_short_queue_drops_what_does_not_fit(line: Line) -> None:
    """As a router does, rather than remembering without end."""
    line.send(Condition(delay_ms=0, queue=3))
    assert line.arrived() == list(FRAMES[:3])
