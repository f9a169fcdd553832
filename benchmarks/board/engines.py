"""Engines of the check, each in its process, timed in turns."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import Any, Final

import numpy as np
from benchmarks.board import engine_child
from benchmarks.board.step import NotDoneError
from numpy.typing import NDArray

from stoker_builder.environment import own_environment
from stoker_builder.latency.stats import Burst, LatencyStats, summarise
from stoker_builder.profiling.operators import OperatorProfile
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind

_BURST_RUNS: Final = 20
_WARM_RUNS: Final = 20
_ROUNDS: Final = 20
_NS: Final = 1e9
_LIMIT_S: Final = 300.0


class HeldEngine:
    """An engine in a process of its own, until it is closed.

    Attributes:
        answers: to the samples, one row each.
        load_s: until they were answered.
        providers: what runs it, of ONNX Runtime.
        tells_layers: it is a plan that is not recorded.

    Raises:
        NotDoneError: it can not be loaded, with the engine's code and words; or it crashed.
    """

    def __init__(self, path: Path, kind: ArtifactKind, session: SessionOptions) -> None:
        self.tells_layers = kind is ArtifactKind.TENSORRT_PLAN and not session.cuda_graph
        command = [sys.executable, engine_child.__file__, str(path), kind.value]
        # a pipe that nobody reads would stop a library that says much
        self._errors = TemporaryFile("w+", errors="replace")  # noqa: SIM115  until it is closed
        self._process = subprocess.Popen(  # noqa: S603 - a program of ours
            [*command, session.encode().decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=own_environment(),
        )
        told = self._heard()
        if "code" in told:
            self.close()
            msg = f"{told['code']}: {told['detail']}"
            raise NotDoneError(msg)
        self.answers: NDArray[np.float64] = np.array(told["answers"])
        self.load_s = float(told["load_s"])
        self.providers: tuple[str, ...] = tuple(told["providers"] or ())

    def burst(self, runs: int) -> Burst:
        """Time so many runs, one after the other."""
        return Burst(tuple(self._asked({"runs": runs})["ns"]))

    def layers(self) -> OperatorProfile | None:
        """What its layers take of a run, if it tells; it is slower from then on."""
        told = self._asked({"layers": True})["layers"]
        return None if told is None else OperatorProfile.parse_object(told)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _asked(self, what: Mapping[str, object]) -> Mapping[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        # a GPU that hangs leaves its process hanging: it is killed, and then says nothing
        watch = Timer(_LIMIT_S, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            self._process.communicate()
            self._errors.seek(0)
            said = self._errors.read()
            msg = f"its process ended with {self._process.returncode}: {said.strip()[-600:]}"
            raise NotDoneError(msg)
        heard: Mapping[str, Any] = json.loads(line)
        return heard


def timed(
    engines: Mapping[str, HeldEngine], seconds: float, lost: dict[str, object]
) -> dict[str, LatencyStats]:
    """Time engines in turns, for about so many seconds each.

    Args:
        engines: by name.
        seconds: of each.
        lost: where the last words go of those that end meanwhile; they have no latency.
    """
    bursts: dict[str, list[Burst]] = {name: [] for name in engines}
    runs: dict[str, int] = {}
    for turn in range(_ROUNDS + 1):
        for name, engine in engines.items():
            if name in lost:
                continue
            try:
                if turn == 0:
                    runs[name] = _runs(engine.burst(_WARM_RUNS), seconds)
                else:
                    bursts[name].append(engine.burst(runs[name]))
            except (NotDoneError, OSError) as error:
                lost[name] = str(error)
    return {name: summarise(taken) for name, taken in bursts.items() if name not in lost}


def compared(answers: NDArray[np.float64], expected: NDArray[np.float64]) -> dict[str, float]:
    """How far answers are from those that were expected."""
    norms = np.linalg.norm(answers, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.sum(answers * expected, axis=1) / np.maximum(norms, 1e-12)
    same = np.argmax(answers, axis=1) == np.argmax(expected, axis=1)
    return {
        "largest difference": float(np.max(np.abs(answers - expected))),
        "largest answer": float(np.max(np.abs(expected))),
        "least cosine": float(np.min(cosines)),
        "same winner": float(np.mean(same)),
    }


def close_all(engines: Iterable[HeldEngine]) -> None:
    """End all of them."""
    for engine in engines:
        engine.close()


def _runs(warm: Burst, seconds: float) -> int:
    usual_s = float(np.median(warm.samples_ns)) / _NS
    return max(_BURST_RUNS if seconds >= 1 else 2, int(seconds / _ROUNDS / max(usual_s, 1e-6)))
