"""What an artifact costs in memory, measured with the engine code that ships."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_contract.manifest import Footprint

_TIMEOUT_S: Final = 120.0


def measure_footprint(artifact: Path, inputs: Inputs) -> Footprint:
    """Load an artifact in a process of its own and run it a few times.

    Raises:
        BuildError: ``MEASURE``, when that process fails.
    """
    with tempfile.TemporaryDirectory(prefix="stk") as folder:
        path = Path(folder) / "inputs.npz"
        np.savez(path, allow_pickle=False, **inputs)
        try:
            ended = subprocess.run(  # noqa: S603  our own module
                [sys.executable, "-m", "stoker_builder.latency.footprint_child", artifact, path],
                capture_output=True,
                timeout=_TIMEOUT_S,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                check=False,
            )
        except subprocess.TimeoutExpired:
            detail = f"{artifact.name} was not loaded within {_TIMEOUT_S:.0f} s"
            raise BuildError(BuildCode.MEASURE, detail, "is this machine overloaded?") from None
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="replace").strip()[-400:]
        detail = f"loading {artifact.name} alone failed (exit {ended.returncode}): {said}"
        raise BuildError(BuildCode.MEASURE, detail, "run it again; report it if it repeats")
    memory = json.loads(ended.stdout)
    return Footprint(load_peak_bytes=memory["peak"], steady_bytes=memory["steady"])
