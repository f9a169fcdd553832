"""Looking inside what ships: where its time goes, before and after, and how it uses the cores."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.concurrency import measure_concurrency
from stoker_builder.models.source import Inputs
from stoker_builder.profiling.record import record_artifact
from stoker_builder.profiling.spans import Recording, profile_of
from stoker_builder.profiling.trace import to_trace
from stoker_builder.report.document import TargetProfile, Throughput
from stoker_contract.manifest import SessionOptions
from stoker_engine.engine import EngineError

MAX_CORES: Final = 8
TRACE: Final = "{target}.trace.json"


@dataclass(frozen=True, slots=True)
class Version:
    """A file and how it is run."""

    title: str
    path: Path
    session: SessionOptions


@dataclass(frozen=True, slots=True)
class Inside:
    """What was seen inside the artifact for one target.

    Attributes:
        recordings: the runs themselves, before and after.
    """

    profile: TargetProfile
    recordings: tuple[Recording, ...]


def look_inside(
    target: str, before: Version, after: Version, inputs: Inputs, *, seconds: float
) -> Inside:
    """Profile the reference and what ships, and let what ships use the cores in every way.

    Args:
        target: whose kernels this machine has.
        before: the reference.
        after: what ships; it may be the reference.
        inputs: one sample.
        seconds: for each way to use the cores; 0 for none.

    Raises:
        BuildError: one of them can not be profiled.
    """
    versions = (before, after) if after != before else (before,)
    recordings = tuple(
        record_artifact(one.path, inputs, one.session, title=one.title) for one in versions
    )
    profiles = [profile_of(recording) for recording in recordings]
    return Inside(
        TargetProfile(
            target=target,
            before=profiles[0],
            after=profiles[1] if len(profiles) > 1 else None,
            throughput=_throughput(after, inputs, seconds) if seconds else (),
        ),
        recordings,
    )


def _throughput(version: Version, inputs: Inputs, seconds: float) -> tuple[Throughput, ...]:
    cores = min(os.cpu_count() or 1, MAX_CORES)
    try:
        uses = measure_concurrency(
            version.path, inputs, version.session, cores=cores, seconds=seconds
        )
    except EngineError as error:
        hint = "run it again; report it if it repeats"
        raise BuildError(BuildCode.MEASURE, error.detail, hint) from None
    return tuple(Throughput(**asdict(use)) for use in uses)


def write_traces(folder: Path, insides: Iterable[Inside]) -> None:
    """Write a trace for each target, which Perfetto opens.

    Raises:
        BuildError: ``OUTPUT_WRITE``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in insides:
            path = folder / TRACE.format(target=one.profile.target)
            path.write_bytes(to_trace(one.recordings))
    except OSError as error:
        detail = f"writing the traces to {folder} failed: {error.strerror or error}"
        hint = "the release itself is written; choose another --profile"
        raise BuildError(BuildCode.OUTPUT_WRITE, detail, hint) from None
