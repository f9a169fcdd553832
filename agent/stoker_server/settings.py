"""What can be set about the server, in one immutable value."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server process.

    Attributes:
        engine_command: starts a worker; ``--fd N`` is appended.
        socket_group: may use the inference socket, where there is such a group.
        max_queue: requests that may wait per slot before more are refused.
        max_wait_s: how long a request waits for an engine that is being restarted.
        receive_timeout_s: a client that needs longer for its headers, or then its body, is dropped.
        run_timeout_s: a run that takes longer is taken for a hang; its worker is killed.
        heartbeat_timeout_s: a worker that is silent for so long is taken for frozen.
        restart_attempts: failed starts in a row before the next engine of the chain is tried.
        crash_window_s: more than ``max_crashes`` crashes in this time are a crash loop.
        memory_share: of the available memory, what a worker may use when nobody says.
    """

    state_dir: Path
    run_dir: Path
    http: tuple[str, int] | None = None
    socket_group: str = "stoker-clients"
    engine_command: tuple[str, ...] = (sys.executable, "-m", "stoker_engine")
    engine_environment: Mapping[str, str] = field(default_factory=dict)
    max_queue: int = 128
    max_body_bytes: int = 64 * MIB
    max_wait_s: float = 5.0
    receive_timeout_s: float = 30.0
    run_timeout_s: float = 60.0
    load_timeout_s: float = 120.0
    heartbeat_s: float = 1.0
    heartbeat_timeout_s: float = 15.0
    restart_attempts: int = 3
    restart_base_s: float = 0.1
    restart_cap_s: float = 30.0
    crash_window_s: float = 60.0
    max_crashes: int = 5
    drain_timeout_s: float = 10.0
    candidate_niceness: int = 10
    memory_share: float = 0.8
