"""Stands in for the compiler of a board that is not here: it does what its "graph" says.

Of a graph that is text, the first word is what to do and the rest whatever it needs:
``compile BODY``, ``refuse WORDS``, ``sleep-once FOLDER`` (for ever, the first time),
``await FOLDER`` (until there is ``go`` in it), ``end-worker`` (kills the process that started it,
each time), ``grow`` (takes memory).
"""

import os
import signal
import sys
from pathlib import Path

from stoker_builder.tensorrt.settings import CompileJob, CompileReport
from support.build_jobs import IO
from support.plans import plan
from support.waiting import wait_until


def main() -> None:
    """Answer one job."""
    job = CompileJob.parse(sys.stdin.buffer.read())
    graph = Path(job.onnx).read_bytes()
    report = act(graph, job)
    sys.stdout.buffer.write(report.encode())


def act(graph: bytes, job: CompileJob) -> CompileReport:
    """What a graph asks for."""
    word, _, rest = graph.decode(errors="replace").partition(" ")
    if word == "refuse":
        return CompileReport(stopped="COMPILE", detail=f"{rest}\nuse another graph")
    if word == "end-worker":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    if word == "grow":
        hoard = [b"x" * 2**24 for _ in range(64)]
        signal.pause()
        del hoard
    if word == "sleep-once" and not Path(rest, "slept").exists():
        unfinished = Path(rest, "falling-asleep")
        unfinished.write_text(str(os.getpid()))
        unfinished.rename(Path(rest, "slept"))  # whoever sees it finds the number in it
        signal.pause()
    if word == "await":
        Path(rest, "here").touch()
        wait_until(Path(rest, "go").exists, 60.0)
    Path(job.plan).write_bytes(plan(graph))
    if job.timing_cache is not None:
        path = Path(job.timing_cache)
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"timed;")
    return CompileReport(io=IO, layers=3, seconds=0.5, version="10.3.0.26")


if __name__ == "__main__":
    main()
