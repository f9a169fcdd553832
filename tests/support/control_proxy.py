"""Sits on the control socket between agent and server, and holds back what it is told to."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from stoker_contract.control import Op

Side = Literal["request", "answer"]


class ControlProxy:
    """Forwards line by line. A held line waits, and with it all that come after it."""

    def __init__(self, path: Path, server: Path) -> None:
        self._server = server
        self._held: dict[Op, Side] = {}
        self._reached = threading.Event()
        self._released = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._spawn(self._accept)

    def hold(self, op: Op, side: Side = "request") -> None:
        """From now on, hold back this operation: before the server sees it, or its answer."""
        self._reached.clear()
        self._released.clear()
        self._held = {op: side}

    def reached(self) -> bool:
        """Whether something is held back now."""
        return self._reached.is_set()

    def release(self) -> None:
        """Hold nothing back any more."""
        self._held = {}
        self._released.set()

    def close(self) -> None:
        """End."""
        self.release()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                agent, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [agent, server]
                try:
                    server.connect(str(self._server))
                except OSError:
                    agent.close()
                    continue
                ops: dict[int, Op] = {}
                self._spawn(self._forward, agent, server, "request", ops)
                self._spawn(self._forward, server, agent, "answer", ops)

    def _forward(
        self, source: socket.socket, target: socket.socket, side: Side, ops: dict[int, Op]
    ) -> None:
        with suppress(OSError, ValueError), source.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if side == "request":
                    ops[message["id"]] = Op(message["op"])
                if self._held.get(ops[message["id"]]) == side:
                    self._reached.set()
                    self._released.wait(60)
                target.sendall(line)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def control_proxy(path: Path, server: Path) -> Iterator[ControlProxy]:
    """A proxy that ends with the block."""
    proxy = ControlProxy(path, server)
    try:
        yield proxy
    finally:
        proxy.close()
