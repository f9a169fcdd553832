"""A real stoker-server in a folder of its own, and the agent's end of its control socket."""

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stoker_contract import control
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Op
from stoker_contract.document import Document
from stoker_contract.engine import EngineSpec, SlotFile
from stoker_contract.manifest import Golden
from support.waiting import wait_until

FAULTY_ENGINE = Path(__file__).with_name("faulty_engine.py")


class RefusedError(Exception):
    """The server refused an operation."""

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ControlClient:
    """The agent's end of the control socket, blocking."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self._id = 0

    def ask(self, op: Op, args: Document | None = None) -> dict[str, Any]:
        """Do one operation.

        Raises:
            RefusedError: with the code of the refusal.
        """
        self._id += 1
        request = control.Request(id=self._id, op=op, args=args.to_object() if args else {})
        self.send(request.encode() + b"\n")
        line = self.read_line()
        if not line:
            raise ConnectionError(op)
        response = control.Response.parse(line, max_bytes=1024 * 1024)
        assert response.id == self._id
        if response.code is not None:
            raise RefusedError(response.code, response.detail)
        return response.result or {}

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def read_line(self) -> bytes:
        """The next line of the server."""
        return self._file.readline()

    def load(self, slot: str, spec: EngineSpec, **options: float) -> control.Loaded:
        """Load a candidate."""
        arguments = {"slot": slot, "spec": spec.to_object(), **options}
        return control.Loaded.parse_object(self.ask(Op.LOAD, control.Load.parse_object(arguments)))

    def swap(self, slot: str) -> control.Swapped:
        """Let the candidate serve."""
        return control.Swapped.parse_object(self.ask(Op.SWAP, control.SlotOnly(slot=slot)))

    def warm(self, slot: str, timeout_s: float = 60.0) -> control.Warmed:
        """Warm the candidate up."""
        args = control.SlotTimeout(slot=slot, timeout_s=timeout_s)
        return control.Warmed.parse_object(self.ask(Op.WARM, args))

    def golden(
        self, slot: str, path: Path, golden: Golden, **options: float
    ) -> control.GoldenResult:
        """Run the golden set on the candidate."""
        arguments = {"slot": slot, "path": str(path), "golden": golden.to_object(), **options}
        args = control.RunGolden.parse_object(arguments)
        return control.GoldenResult.parse_object(self.ask(Op.GOLDEN, args))

    def observe(self, slot: str) -> control.Observed:
        """Live traffic since the swap."""
        return control.Observed.parse_object(self.ask(Op.OBSERVE, control.SlotOnly(slot=slot)))

    def restore(self, slot: str) -> control.Swapped:
        """Let the engine before the swap serve again."""
        return control.Swapped.parse_object(self.ask(Op.RESTORE, control.SlotOnly(slot=slot)))

    def abort(self, slot: str) -> None:
        """Close the candidate."""
        self.ask(Op.ABORT, control.SlotOnly(slot=slot))

    def retire(self, slot: str, drain_timeout_s: float = 10.0) -> control.Retired:
        """Close the engine before the swap."""
        args = control.Retire(slot=slot, drain_timeout_s=drain_timeout_s)
        return control.Retired.parse_object(self.ask(Op.RETIRE, args))

    def status(self, slot: str) -> control.SlotStatus:
        """The status of one slot; an empty one when the server does not know it."""
        status = control.ServerStatus.parse_object(self.ask(Op.STATUS))
        return status.slots.get(slot, control.SlotStatus())

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


class ServerProcess:
    """``stoker-server`` with its folders under ``root``. A context manager: always ended."""

    def __init__(
        self, root: Path, *options: str, engine: Sequence[str] | None = None, tcp: bool = True
    ) -> None:
        self.state_dir = root / "state"
        self.run_dir = root / "run"
        self.store = self.state_dir / "store" / "sha256"
        self.store.mkdir(parents=True, exist_ok=True)
        (self.state_dir / "slots").mkdir(exist_ok=True)
        self._options = [*options, "--http", "127.0.0.1:0" if tcp else "none"]
        if engine is not None:
            self._options += ["--engine-command", shlex.join(engine)]
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._clients: list[ControlClient] = []
        self.events: list[dict[str, Any]] = []

    def add_options(self, *options: str) -> None:
        """Further command line options for the next start."""
        self._options += options

    def start(self, passed: socket.socket | None = None) -> Self:
        """Start the process and wait until it listens; ``passed`` as by socket activation."""
        self.events.clear()
        self._process = subprocess.Popen(
            [
                *(_activated(passed) if passed else ()),
                *(sys.executable, "-m", "stoker_server", "--log-format", "json"),
                *("--state-dir", str(self.state_dir), "--run-dir", str(self.run_dir)),
                *self._options,
            ],
            stderr=subprocess.PIPE,
            pass_fds=(passed.fileno(),) if passed else (),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()
        wait_until(lambda: self.seen("server.listening") or self._ended(), 30, "server listens")
        if self._ended():
            self._reader.join()
        assert self.seen("server.listening"), self.events
        return self

    def write_slot(
        self,
        slot: str,
        current: EngineSpec,
        previous: EngineSpec | None = None,
        fallback: EngineSpec | None = None,
    ) -> Path:
        """Write a slot file, as the agent would."""
        path = self.state_dir / "slots" / f"{slot}.json"
        file = SlotFile(slot=slot, current=current, previous=previous, fallback=fallback)
        path.write_bytes(file.encode())
        return path

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket_path(self) -> Path:
        """Where inference is served."""
        return self.run_dir / "inference.sock"

    @property
    def tcp(self) -> tuple[str, int]:
        """Host and port of the HTTP listener."""
        wait_until(lambda: len(self.seen("server.listening")) > 1, what="TCP listener")
        address = next(
            event["address"]
            for event in self.seen("server.listening")
            if event["address"].startswith("http://")
        )
        host, _, port = address.removeprefix("http://").rpartition(":")
        return host, int(port)

    def control(self) -> ControlClient:
        """A connection to the control socket; closed with the server."""
        client = ControlClient(self.run_dir / "control.sock")
        self._clients.append(client)
        return client

    def wait_ready(self, slot: str, timeout_s: float = 30) -> None:
        """Wait until the slot is served."""
        client = self.control()
        wait_until(lambda: client.status(slot).ready, timeout_s, f"{slot} is served")

    def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request over TCP: status, headers, body."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(*self.tcp, timeout=60)
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()

    def seen(self, event: str) -> list[dict[str, Any]]:
        """The log events of a name so far."""
        return [entry for entry in list(self.events) if entry.get("event") == event]

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self._process is not None
        self._clients.clear()
        self._process.kill()
        self._process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """Send SIGTERM and return the exit status."""
        assert self._process is not None
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            if self._reader is not None:
                self._reader.join()

    def end(self) -> None:
        """End the process if it runs, whatever state it is in."""
        if self._process is not None:
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.events.append({"event": "output", "line": line.decode(errors="replace")})


def engine_pids(server_pid: int) -> list[int]:
    """The engine processes of a server that are alive."""
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text()
    return [int(pid) for pid in children.split() if not _is_zombie(int(pid))]


def in_flight(server: ServerProcess) -> int:
    """How many requests a server has let in and not answered."""
    text = server.request("GET", "/metrics")[2].decode()
    lines = [line for line in text.splitlines() if line.startswith("stoker_slot_requests_in")]
    return sum(int(line.split()[-1]) for line in lines)


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    return Path(f"/proc/{pid}").exists() and not _is_zombie(pid)


def _activated(passed: socket.socket) -> tuple[str, ...]:
    """A process that makes ``passed`` the first inherited descriptor and becomes the server."""
    script = (
        "import os, sys\n"
        f"os.dup2({passed.fileno()}, 3)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return (sys.executable, "-c", script)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
