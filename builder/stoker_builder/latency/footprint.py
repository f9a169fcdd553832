"""What starting an artifact costs, in time and memory, with the engine code that ships."""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_contract.manifest import Footprint, SessionOptions
from stoker_contract.target import ArtifactKind

_TIMEOUT_S: Final = 120.0
_PROCESSES: Final = 3


@dataclass(frozen=True, slots=True)
class Start:
    """What one artifact costs in a process that has nothing else.

    Attributes:
        load_ms: until the runtime has the model ready. The runtime is imported and the file
            is in the page cache by then.
        first_run_ms: the first answer; it pays for what the runtime does lazily.
        load_peak_bytes: the most memory that the process ever had.
        steady_bytes: after some runs.
    """

    load_ms: float
    first_run_ms: float
    load_peak_bytes: int
    steady_bytes: int

    @property
    def footprint(self) -> Footprint:
        """The memory, as the manifest writes it."""
        return Footprint(load_peak_bytes=self.load_peak_bytes, steady_bytes=self.steady_bytes)


def measure_start(
    artifact: Path,
    inputs: Inputs,
    session: SessionOptions | None = None,
    *,
    kind: ArtifactKind = ArtifactKind.ONNX,
    processes: int = _PROCESSES,
) -> Start:
    """Load an artifact and run it a few times, in fresh processes, one after the other.

    Times are medians over the processes, memory is the most that any of them had.

    Args:
        artifact: the file.
        inputs: one sample.
        session: how the runtime is set up.
        kind: the format of the file.
        processes: how many.

    Raises:
        BuildError: ``MEASURE``, when such a process fails.
    """
    with tempfile.TemporaryDirectory(prefix="stk") as folder:
        path = Path(folder) / "inputs.npz"
        np.savez(path, allow_pickle=False, **inputs)
        setup = (session or SessionOptions()).encode().decode()
        seen = [_one_process(artifact, path, kind, setup) for _ in range(processes)]
    return Start(
        load_ms=statistics.median(one["load_ns"] for one in seen) / 1e6,
        first_run_ms=statistics.median(one["first_run_ns"] for one in seen) / 1e6,
        load_peak_bytes=max(one["peak"] for one in seen),
        steady_bytes=max(one["steady"] for one in seen),
    )


def _one_process(artifact: Path, inputs: Path, kind: ArtifactKind, setup: str) -> dict[str, Any]:
    module = "stoker_builder.latency.footprint_child"
    try:
        ended = subprocess.run(  # noqa: S603  our own module
            [sys.executable, "-m", module, artifact, kind.value, setup, inputs],
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=own_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        detail = f"{artifact.name} was not loaded within {_TIMEOUT_S:.0f} s"
        raise BuildError(BuildCode.MEASURE, detail, "is this machine overloaded?") from None
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="replace").strip()[-400:]
        detail = f"loading {artifact.name} alone failed (exit {ended.returncode}): {said}"
        raise BuildError(BuildCode.MEASURE, detail, "run it again; report it if it repeats")
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures
