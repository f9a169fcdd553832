"""A real ``stoker-agent run``, to be killed and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stoker_agent.state.journal import Journal
from stoker_contract.status import Phase


class AgentProcess:
    """The agent of one configuration. A context manager: always ended."""

    def __init__(self, config: Path, state_dir: Path, *options: str) -> None:
        self.config = config
        self.state_dir = state_dir
        self._options = options
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def start(self) -> Self:
        """Start the process."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "stoker_agent", "run"),
                    *("--config", str(self.config)),
                    *self._options,
                ],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        return self

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=10)

    def stop(self) -> int:
        """End it in order; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=30)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of ``stoker-agent`` on the same device."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "stoker_agent"),
                *arguments,
                *("--config", str(self.config)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def phase(self) -> Phase:
        """Where the running deployment is, as the journal on the disk says."""
        if not (self.state_dir / "state.db").exists():
            return Phase.IDLE
        journal = Journal(self.state_dir / "state.db")
        try:
            unfinished = journal.unfinished()
        finally:
            journal.close()
        return unfinished[0].progress.phase if unfinished else Phase.IDLE

    def log(self) -> list[dict[str, Any]]:
        """What the agent logged, in all of its lives."""
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
