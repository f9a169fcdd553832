"""The command line of ``stoker bench``."""

import json
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker_cli.errors import CommandError

if TYPE_CHECKING:
    from stoker_builder.benchmark.subjects import Subject

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_NOT_QUOTABLE = 3


class Arrivals(StrEnum):
    """When requests come."""

    POISSON = "poisson"
    EVEN = "even"


_Subjects = Annotated[
    list[str],
    typer.Argument(
        help="an .onnx file, a release folder, http://HOST:PORT or a Unix socket; several are "
        "measured in turns",
        metavar="WHAT...",
    ),
]
_Runtime = Annotated[
    str | None,
    typer.Option(help="onnxruntime, openvino, or both with a comma", metavar="NAMES"),
]
_Threads = Annotated[int | None, typer.Option(help="within one run", min=1)]
_Parallel = Annotated[int, typer.Option(help="callers at once, with --rate", min=1, max=256)]
_Rate = Annotated[
    float | None,
    typer.Option(
        help="offer so many requests a second, whatever becomes of them", min=0.01, max=1e6
    ),
]
_Model = Annotated[str | None, typer.Option(help="of a server: the model, or the slot")]
_Target = Annotated[str | None, typer.Option(help="of a release; else what this machine runs")]
_Inputs = Annotated[
    Path | None, typer.Option(help="an .npz with the inputs; else golden or made up ones")
]
_Limit = Annotated[float, typer.Option(help="stop after so long", min=0.1, metavar="S")]
_Width = Annotated[
    float, typer.Option(help="until the bounds of p99 are so close, in percent of it", min=0.1)
]
_Profile = Annotated[
    Path | None, typer.Option(help="write a trace for Perfetto or chrome://tracing", metavar="FILE")
]
_Quiet = Annotated[
    bool,
    typer.Option("--require-quiet", help="end with status 3 if the figures can not be quoted"),
]


@app.command()
def bench(  # noqa: PLR0913  one parameter per option
    subjects: _Subjects,
    *,
    runtime: _Runtime = None,
    threads: _Threads = None,
    rate: _Rate = None,
    arrivals: Arrivals = Arrivals.POISSON,
    parallel: _Parallel = 1,
    model: _Model = None,
    target: _Target = None,
    inputs: _Inputs = None,
    limit_s: _Limit = 30.0,
    width: _Width = 10.0,
    profile: _Profile = None,
    require_quiet: _Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Measure latency until p99 is known, or at a rate, of anything that answers.

    Several are measured in turns, so that what the machine does hits all alike. A machine that
    is busy or slows down for heat is said to be so.
    """
    if parallel > 1 and rate is None:
        detail = "--parallel is for --rate: without one, each answer is waited for"
        raise CommandError(detail, hint="add --rate R, or drop --parallel")
    from stoker_builder.benchmark import subjects as found  # noqa: PLC0415  --help should not pay
    from stoker_builder.benchmark.run import BenchRules, run_bench  # noqa: PLC0415  as above
    from stoker_cli.bench.view import show  # noqa: PLC0415  imports rich
    from stoker_cli.build.bars import Bars  # noqa: PLC0415  imports rich

    runtimes = [word.strip() for word in (runtime or "").split(",") if word.strip()]
    named = _named(
        [
            one
            for where in subjects
            for one in found.subjects_of(
                where, runtimes=found.runtimes_of(runtimes), threads=threads, target=target
            )
        ]
    )
    rules = BenchRules(limit_s, width / 100, rate, arrivals.value)
    with ExitStack() as stack, Bars() as bars:
        opened = [
            found.open_subject(one, stack, model=model, given=inputs, parallel=parallel)
            for one in named
        ]
        with bars.stage("measure latency", 1.0) as stage:
            result = run_bench(opened, rules, stage.reach)
    if profile is not None:
        from stoker_cli.bench.profile import write_profile  # noqa: PLC0415  as above

        write_profile(opened, profile)
    if as_json:
        sys.stdout.write(json.dumps(result.to_object(), indent=2) + "\n")
    else:
        show(result)
    if require_quiet and not result.quotable:
        raise typer.Exit(_NOT_QUOTABLE)


def _named(subjects: list["Subject"]) -> list["Subject"]:
    """Subjects whose names differ, so that each has its line."""
    from dataclasses import replace  # noqa: PLC0415  --help should not pay for it

    seen: dict[str, int] = {}
    named = []
    for one in subjects:
        seen[one.name] = seen.get(one.name, 0) + 1
        number = seen[one.name]
        named.append(one if number == 1 else replace(one, name=f"{one.name} ({number})"))
    return named
