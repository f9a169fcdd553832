"""Start an engine process: one socket, the sealed artifact and the ring, and nothing else."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_server import memfd, procfs
from stoker_server.errors import ServeError
from stoker_server.settings import Settings

_NOT_FOR_WORKERS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
_NOT_FOR_WORKERS_PREFIX: Final = "LISTEN_"
# One slot runs while the next one's inputs are already written: no gap between two runs.
_SLOTS_PER_RUN: Final = 2
_OOM_SCORE_CANDIDATE: Final = 800
_OOM_SCORE_SERVING: Final = 300


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is to be started.

    Attributes:
        candidate: it runs at low priority until it is promoted.
        memory_limit_bytes: None takes a share of what is available now.
    """

    timeout_s: float
    candidate: bool = False
    memory_limit_bytes: int | None = None


@dataclass(slots=True)
class Started:
    """A process that was started and not heard of yet."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    ring_fd: int
    layout: hop.RingLayout


def start_process(
    spec: EngineSpec, settings: Settings, launch: Launch, artifact_fd: int
) -> Started:
    """Start a worker and send it what to load. Closes ``artifact_fd``.

    Raises:
        ServeError: ``LOAD_ERROR``, the engine command can not be run.
    """
    layout = hop.ring_layout(spec.io, spec.session.parallel_runs * _SLOTS_PER_RUN)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
    with theirs, _closing_fd(artifact_fd):
        ring_fd = memfd.ring(layout.slots * layout.slot_bytes)
        command = [*settings.engine_command, "--fd", str(theirs.fileno())]
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), artifact_fd, ring_fd),
                env=_environment(settings),
                start_new_session=True,  # a Ctrl-C at the terminal is for the server alone
            )
        except OSError as error:
            ours.close()
            os.close(ring_fd)
            detail = f"engine command {command[0]} can not be run: {error}"
            raise ServeError(ReasonCode.LOAD_ERROR, detail) from None
        ours.send(hop.START + _start(spec, settings, launch, layout, (artifact_fd, ring_fd)))
    return Started(process, ours, ring_fd, layout)


def promote(pid: int) -> bool:
    """Take a candidate's low priority back. False when it is not permitted."""
    procfs.set_oom_score(pid, _OOM_SCORE_SERVING)
    return procfs.set_priority(pid, procfs.own_niceness())


def artifact(spec: EngineSpec) -> int:
    """A sealed copy of the artifact of a spec.

    Raises:
        ServeError: ``LOAD_ERROR`` or ``DIGEST_MISMATCH``.
    """
    return memfd.sealed_copy(Path(spec.path), spec.length)


def _start(
    spec: EngineSpec,
    settings: Settings,
    launch: Launch,
    layout: hop.RingLayout,
    fds: tuple[int, int],
) -> bytes:
    limit = launch.memory_limit_bytes or int(procfs.available_bytes() * settings.memory_share)
    # Only where it can be taken back: without privileges a lowered priority is for ever.
    lower = launch.candidate and procfs.may_raise_priority()
    return hop.Start(
        spec=spec,
        artifact_fd=fds[0],
        ring_fd=fds[1],
        ring=layout,
        memory_limit_bytes=limit or None,
        niceness=settings.candidate_niceness if lower else 0,
        oom_score_adj=_OOM_SCORE_CANDIDATE if launch.candidate else _OOM_SCORE_SERVING,
        heartbeat_s=settings.heartbeat_s,
    ).encode()


def _environment(settings: Settings) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_FOR_WORKERS and not name.startswith(_NOT_FOR_WORKERS_PREFIX)
    }
    # numpy's own thread pool does nothing for a worker and costs memory.
    return {**inherited, "OPENBLAS_NUM_THREADS": "1", **settings.engine_environment}


@contextmanager
def _closing_fd(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)
