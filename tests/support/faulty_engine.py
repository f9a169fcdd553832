"""A real worker with a fault built in, chosen by the version of the release it is to run.

``model/segfault-on-load``, ``model/hang-on-load``, ``model/wrong-digest``, ``model/freeze``,
``model/segfault-on-run-N`` (the Nth run) and ``model/crash-always`` (every run); any other release
is served as it should be.
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from stoker_contract import hop
from stoker_contract.engine import EngineSpec
from stoker_engine import worker
from stoker_engine.engine import Array, Engine

_FOREVER_S = 10**6


def _segfault() -> None:
    signal.raise_signal(signal.SIGSEGV)  # in this thread, and so at once


class FaultyEngine:
    """An engine that is killed by its Nth run."""

    def __init__(self, engine: Engine, deadly_run: int) -> None:
        self._engine = engine
        self._runs_left = deadly_run
        self.io = engine.io

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """Run, or crash."""
        self._runs_left -= 1
        if self._runs_left == 0:
            _segfault()
        return self._engine.run(inputs, wanted)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def load(path: str, spec: EngineSpec) -> Engine:
    """Load with the fault that the release names."""
    fault = spec.release.rpartition("/")[2]
    if fault == "segfault-on-load":
        _segfault()
    if fault == "hang-on-load":
        time.sleep(_FOREVER_S)
    engine = worker.load_spec(path, spec)
    if fault == "crash-always":
        return FaultyEngine(engine, 1)
    if fault.startswith("segfault-on-run-"):
        return FaultyEngine(engine, int(fault.removeprefix("segfault-on-run-")))
    return engine


def lie(fd: int) -> None:
    """Shake hands in the name of another artifact."""
    with socket.socket(fileno=fd) as channel:
        start = hop.Start.parse(channel.recv(hop.MAX_FRAME_BYTES)[1:])
        handshake = hop.Handshake(
            digest="f" * 64, pid=os.getpid(), io=start.spec.io, load_s=0.0, rss_bytes=0
        )
        channel.send(hop.HANDSHAKE + handshake.encode())
        channel.recv(1)


def main() -> int:
    """Look at the release without taking the frame, then go the way it names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    fd = parser.parse_args().fd
    with socket.socket(fileno=os.dup(fd)) as peek:
        start = hop.Start.parse(peek.recv(hop.MAX_FRAME_BYTES, socket.MSG_PEEK)[1:])
    if start.spec.release.endswith("/wrong-digest"):
        lie(fd)
        return 0
    return worker.serve(fd, load)


if __name__ == "__main__":
    sys.exit(main())
