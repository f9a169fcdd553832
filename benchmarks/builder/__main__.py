"""Four models, here and as on older processors: what stoker ships beside its peers.

Started by ``scripts/bench builder``. Each row is measured in a process of its own, all of its
variants interleaved; a row that is done is kept, and not measured again without ``--fresh``.
Writes ``benchmarks/results/builder-<machine>.json``, and beside it the same as tables and as a
staircase.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.builder.prepare import Prepared, prepare
from benchmarks.builder.processors import NATIVE, environment, measurable, target_of
from benchmarks.builder.readme import filled
from benchmarks.builder.row import BURST_SECONDS, Order
from benchmarks.builder.staircase import staircase
from benchmarks.builder.tables import ISA_TITLES, markdown
from benchmarks.builder.workloads import WORKLOADS

from stoker_builder.errors import BuildError
from stoker_builder.kernels.cap import CapError, CappedRuntime, capped_runtime
from stoker_builder.latency.machine import describe_machine
from stoker_builder.latency.measure import BurstRules

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results"
README: Final = ROOT / "README.md"
SCRATCH: Final = ROOT / ".bench-cache"
ROW_LIMIT_S: Final = 1200.0
SECONDS: Final = 12.0  # six openings of eight bursts: a quarter of a second shows a busy neighbour
SAMPLES: Final = 3000


@dataclass(frozen=True, slots=True)
class Row:
    """One table: a model, an instruction set, a number of threads."""

    workload: str
    isa: str
    threads: int

    @property
    def key(self) -> str:
        """Its name on the command line and in the result."""
        return f"{self.workload}/{self.isa}/{self.threads}"


class Benchmark:
    """The result so far, and how to get on with it. The file is complete after every step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        machine = describe_machine()
        self._path: Path = options.output or RESULTS / f"builder-{machine.slug}.json"
        self.result: dict[str, Any] = {
            "schema_version": 1,
            "benchmark": "builder",
            "machine": machine.to_object(),
            "summary": machine.summary,
            "method": _method(),
            "accuracy": {},
            "rows": {},
        }
        if self._path.is_file():
            kept = json.loads(self._path.read_text("utf-8"))
            if kept["machine"]["runtimes"] == machine.runtimes:
                self.result |= {name: kept[name] for name in ("accuracy", "rows")}
        self._capped: CappedRuntime | None = None
        self._failed: list[str] = []

    def run(self, rows: list[Row]) -> bool:
        """Prepare, judge and measure what is missing of some rows; say whether all is there."""
        began = time.monotonic()
        if self._options.fresh:
            self._forget(rows)
        for name in dict.fromkeys(row.workload for row in rows):
            say(f"{name}: prepare (builds a release, quantises with the peers' tools)")
            prepare(
                WORKLOADS[name],
                self._folder(name),
                threads=sorted({row.threads for row in rows if row.workload == name}),
                targets=[target_of(isa) for isa in measurable()],
                options=self._build_options(),
            )
        if any(row.isa != NATIVE for row in rows):
            self._capped = capped_runtime()
        for isa in dict.fromkeys(row.isa for row in rows):
            chosen = [row for row in rows if row.isa == isa]
            self._judge(chosen)
            self._time(chosen)
        say(f"{time.monotonic() - began:.0f} s in all")
        return not self._failed

    def _forget(self, rows: list[Row]) -> None:
        """Drop what is known of some rows, and the releases that they measured."""
        for row in rows:
            self.result["rows"].pop(row.key, None)
            self.result["accuracy"].pop(_place(row), None)
            release = Prepared(self._folder(row.workload)).release(row.threads)
            shutil.rmtree(release, ignore_errors=True)

    def _judge(self, rows: list[Row]) -> None:
        """Have everything answer that has not. Nothing is timed: two processes at a time."""
        missing = places_to_judge(rows, self.result)

        def judge(row: Row) -> Any:  # noqa: ANN401  JSON
            say(f"{_place(row)}: answer the certification samples")
            return self._child("judge", row)

        with ThreadPoolExecutor(2) as pool:
            for row, found in zip(missing, pool.map(judge, missing), strict=True):
                if found is not None:
                    self.result["accuracy"][_place(row)] = found
                    self.write()

    def _time(self, rows: list[Row]) -> None:
        for position, row in enumerate(rows, start=1):
            where = f"{row.key} ({position} of {len(rows)})"
            if row.key in self.result["rows"]:
                say(f"{where}: measured before")
                continue
            say(f"{where}: measure")
            found = self._child("time", row)
            if found is not None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.result["rows"][row.key] = {**asdict(row), "measured_at": now, **found}
                self.write()

    def write(self) -> None:
        """Write the result, its tables and its drawing."""
        self.result["rows"] = dict(sorted(self.result["rows"].items(), key=_order))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".new")
        text = json.dumps(self.result, indent=1, allow_nan=False) + "\n"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(self._path)
        self._path.with_suffix(".md").write_text(markdown(self.result), encoding="utf-8")
        if self.result["rows"]:
            self._path.with_suffix(".svg").write_text(staircase(self.result), encoding="utf-8")

    def _build_options(self) -> list[str]:
        """A trial builds on as few samples as it answers."""
        return ["--quick", "--samples", str(self._options.samples)] if self._options.quick else []

    def _folder(self, workload: str) -> Path:
        return SCRATCH / ("quick" if self._options.quick else "full") / workload

    def _child(self, task: str, row: Row) -> Any:  # noqa: ANN401  JSON
        folder = Prepared(self._folder(row.workload)).folder
        order = Order(
            task=task,
            workload=row.workload,
            isa=row.isa,
            threads=row.threads,
            seconds=self._options.seconds,
            samples=self._options.samples,
            folder=str(folder),
            output=str(folder / f"{task}-{row.isa}-{row.threads}.json"),
        )
        try:
            subprocess.run(  # noqa: S603 - our own module
                [sys.executable, "-m", "benchmarks.builder.row", json.dumps(asdict(order))],
                check=True,
                timeout=ROW_LIMIT_S,
                cwd=ROOT,
                env=self._environment(row),
            )
        except subprocess.SubprocessError as error:
            say(f"{row.key}: {task} failed, the others go on: {error}")
            self._failed.append(row.key)
            return None
        return json.loads(Path(order.output).read_text("utf-8"))

    def _environment(self, row: Row) -> dict[str, str]:
        own = {
            "OMP_NUM_THREADS": str(row.threads),
            "MKL_NUM_THREADS": str(row.threads),
            # compiled once for each instruction set and number of threads, then found again
            "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / f"inductor-{row.isa}"),
        }
        cap = environment(row.isa, self._capped) if self._capped and row.isa != NATIVE else {}
        return {**os.environ, **own, **cap}


def main() -> None:
    """Measure, or write the tables and the drawing again."""
    options = _options()
    benchmark = Benchmark(options)
    complete = True
    if not options.tables:
        try:
            complete = benchmark.run(list(_rows(options)))
        except (BuildError, CapError) as error:
            sys.exit(f"error: {error}")
        except subprocess.CalledProcessError as error:
            sys.exit(f"error: stoker build failed (exit {error.returncode}); it said why above")
    benchmark.write()
    if options.tables:
        README.write_text(filled(README.read_text("utf-8"), load_result), encoding="utf-8")
    print(benchmark.result["summary"])
    print(markdown(benchmark.result).partition("\n## ")[0])
    if not complete:
        sys.exit("some rows failed; run it again to try those")


def load_result(name: str) -> dict[str, Any]:
    """Read a result by the name of its file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def say(text: str) -> None:
    """Tell what happens now, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench builder", description=__doc__)
    parser.add_argument("--rows", default="", help="only keys with one of these parts, a,b")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing, per variant")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="to answer, at most")
    parser.add_argument("--quick", action="store_true", help="a trial: quick builds, few samples")
    parser.add_argument("--fresh", action="store_true", help="measure what was measured before")
    parser.add_argument(
        "--tables",
        action="store_true",
        help="measure nothing: write the tables, the drawing and the README's rows again",
    )
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    return parser.parse_args()


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    parts = [part for part in options.rows.split(",") if part]
    for isa in measurable():
        for workload in WORKLOADS:
            for threads in sorted({1, min(2, os.cpu_count() or 1)}):
                row = Row(workload, isa, threads)
                if not parts or any(part in row.key for part in parts):
                    yield row


def places_to_judge(rows: Iterable[Row], result: Mapping[str, Any]) -> list[Row]:
    """One row for each place where something has not answered that is there or will be timed."""

    def is_known(row: Row) -> bool:
        found = result["accuracy"].get(_place(row))
        if found is None or row.key in result["rows"]:
            return found is not None
        return str(row.threads) in found.get("shipped", {})

    return list(dict.fromkeys(Row(r.workload, r.isa, 1) for r in rows if not is_known(r)))


def _place(row: Row) -> str:
    """What an answer depends on: not on the number of threads, but for which file ships."""
    return f"{row.workload}/{row.isa}"


def _order(entry: tuple[str, Mapping[str, Any]]) -> tuple[int, int, int]:
    row = entry[1]
    isa, workload = list(ISA_TITLES).index(row["isa"]), list(WORKLOADS).index(row["workload"])
    return isa, workload, row["threads"]


def _method() -> dict[str, Any]:
    rules = BurstRules()
    return {
        "batch": 1,
        "niceness": os.nice(0),
        "burst_seconds": BURST_SECONDS,
        "idle_gap_s": rules.idle_gap_s,
        "max_other_share": rules.max_other_share,
    }


if __name__ == "__main__":
    main()
