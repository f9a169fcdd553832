"""The benchmarks: figures and tables that say the same."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stoker_builder.errors import BuildCode
from stoker_builder.latency.stats import Burst, summarise
from stoker_builder.models.entrypoints import load_entry

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("photos-*.json"))
TABLES = ROOT / "benchmarks" / "tables.py"


def table_of(result: dict[str, Any]) -> str:
    """Write the table of a result as the benchmark does."""
    return str(load_entry(f"{TABLES}:markdown", BuildCode.DATA_ENTRY)(result))


def stats_of(*burst_ms: float) -> Any:  # noqa: ANN401 - JSON
    """Make a variant's figures from the duration of each of its bursts' samples."""
    bursts = [Burst((int(ms * 1e6),) * 50, contaminated=ms > 100) for ms in burst_ms]
    return load_entry(f"{TABLES}:stats_object", BuildCode.DATA_ENTRY)(summarise(bursts))


def result() -> dict[str, Any]:
    """Make the smallest result there can be."""
    judged = {
        "candidate": 0.865,
        "reference": 0.8675,
        "loss": 0.0025,
        "loss_bound": 0.0084,
        "agreement": 0.98,
        "verdict": "PASS",
    }
    return {
        "benchmark": "photos",
        "summary": "a processor",
        "measured_at": "2026-01-02T03:04:05+00:00",
        "artifact": {"precision": "int8", "recipe": "U8S8", "length": 5_200_000, "target": "here"},
        "data": {"note": "right answers on 800 labelled photographs"},
        "latency": {"eager": stats_of(*[26.0] * 7, 126.0), "shipped": stats_of(*[2.0] * 8)},
        "speedup_of_shipped": {"eager": {"ratio": 13.0, "low": 12.0, "high": 14.0}},
        "accuracy": {"shipped": judged},
    }


def test_a_table_quotes_the_figures_with_their_bounds() -> None:
    """Speed-up with its interval, loss with its bound, and how much was disturbed."""
    table = table_of(result())

    assert "13.0x (12.0 to 14.0)" in table
    assert "+0.25 (+0.84)" in table
    assert "| 26.00 |" in table
    assert "12%" in table  # one burst of eight beside a busy neighbour
    assert "right answers on 800 labelled photographs" in table


def test_samples_are_kept_as_bursts_and_a_histogram() -> None:
    """A result file holds what is needed to judge a run, not each single sample."""
    stats = stats_of(2.0, 3.0)

    assert stats["burst_p50_ms"] == [2.0, 3.0]
    assert sum(stats["histogram"]["counts"]) == 100
    assert "samples_ms" not in stats
    json.dumps(stats, allow_nan=False)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_tables_are_those_of_their_figures(path: Path) -> None:
    """A table in the repository can be made again from the JSON beside it."""
    committed = path.with_suffix(".md").read_text(encoding="utf-8")

    assert committed == table_of(json.loads(path.read_text(encoding="utf-8")))


def test_an_unknown_benchmark_is_refused_at_once() -> None:
    """A mistyped name says what there is, before anything is installed."""
    done = subprocess.run(
        [str(ROOT / "scripts" / "bench"), "fotos"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "scripts/bench photos" in done.stderr
