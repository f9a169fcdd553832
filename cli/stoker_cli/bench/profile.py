"""Writing the trace of what was measured."""

from collections.abc import Sequence
from pathlib import Path

from stoker_builder.benchmark.subjects import Opened
from stoker_builder.profiling.record import record_artifact
from stoker_builder.profiling.trace import to_trace
from stoker_cli.errors import CommandError


def write_profile(opened: Sequence[Opened], path: Path) -> None:
    """Profile every file and write one trace.

    Raises:
        BuildError: a file can not be profiled.
        CommandError: only servers were measured: their inside is not to be seen from here.
    """
    recordings = [
        record_artifact(
            Path(one.subject.where),
            one.inputs,
            one.subject.session,
            title=one.subject.name,
            kind=one.subject.kind,
        )
        for one in opened
        if one.subject.kind is not None
    ]
    if not recordings:
        detail = "--profile looks into a runtime, and a server's is not to be seen from here"
        raise CommandError(detail, hint="profile the artifact's file")
    path.write_bytes(to_trace(recordings))
