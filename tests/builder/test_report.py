"""The report: what it holds, and that it can be read and drawn again."""

import json
from pathlib import Path

import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.cap import CappedRuntime
from stoker_builder.kernels.places import native, place_for
from stoker_builder.report.files import read_report, report_files
from stoker_builder.report.words import captions, compared_with
from stoker_contract.manifest import Precision
from stoker_contract.target import Runtime


def test_a_report_is_read_back_as_it_was_made(built: BuildResult) -> None:
    """The file in the release folder is the whole report."""
    assert read_report(built.output) == built.report
    assert read_report(built.output / "report.json") == built.report


def test_every_form_can_be_made_again(built: BuildResult) -> None:
    """All files of a report come from the report alone."""
    for name, data in report_files(read_report(built.output)).items():
        assert (built.output / name).read_bytes() == data


def test_times_with_tiles_are_not_taken_for_those_of_a_device(built: BuildResult) -> None:
    """A build machine with AMX is faster than devices that only have what the target asks for."""
    first = built.report.artifacts[0].model_copy(update={"precision": Precision.INT8})
    assert first.accuracy is not None
    accuracy = first.accuracy.model_copy(update={"certified_on": "native amx_int8"})

    def said(*isa: str) -> bool:
        target = first.target.model_copy(update={"isa": isa})
        artifact = first.model_copy(update={"accuracy": accuracy, "target": target})
        report = built.report.model_copy(update={"artifacts": (artifact,)})
        return any(f"{target.name}: answered and timed with amx" in s for s in captions(report))

    assert said("avx2", "avx512_vnni")
    assert not said("avx2", "avx512_vnni", "amx_int8")


def test_tables_begin_with_what_took_turns_with_their_rows(built: BuildResult) -> None:
    """PyTorch is timed in every place where nothing of it is hidden; one is enough to see."""
    report = built.report
    row = next(row for row in report.candidates if row.latency)
    assert row.latency is not None
    here = report.baselines[0].model_copy(update={"measured_on": row.latency.measured_on})
    elsewhere = here.model_copy(update={"measured_on": "another place"})

    both = report.model_copy(update={"baselines": (elsewhere, here)})
    neither = report.model_copy(update={"baselines": (elsewhere,)})

    assert compared_with(both) == (here,)
    assert compared_with(neither) == (elsewhere,)


def test_distributions_and_bounds_are_in_the_report(built: BuildResult) -> None:
    """Quantiles rise from the fastest to the slowest sample; a bound is beyond its quantile."""
    for entry in built.report.baselines:
        figures = entry.latency
        assert len(figures.quantiles_ms) == 101
        assert list(figures.quantiles_ms) == sorted(figures.quantiles_ms)
        assert figures.p50_low_ms is not None
        assert figures.p50_low_ms <= figures.p50_ms
        assert figures.p99_high_ms is None or figures.p99_high_ms >= figures.p99_ms


def test_starting_is_measured_for_what_ships(built: BuildResult) -> None:
    """Loading, first answer and memory, in processes that have nothing else."""
    for target in built.report.targets:
        shipped = built.report.shipped_for(target)
        assert shipped is not None
        assert shipped.start is not None
        assert shipped.start.load_ms > 0
        assert shipped.start.first_run_ms > 0
        assert 10_000_000 < shipped.start.steady_bytes <= shipped.start.load_peak_bytes


def test_what_ships_is_looked_into_where_its_kernels_are(built: BuildResult, traces: Path) -> None:
    """Operators, uses of the cores and a trace, for the targets that this machine runs."""
    capped = CappedRuntime(traces)
    ran = [(a.target, a.session.runtime or Runtime.ONNXRUNTIME) for a in built.manifest.artifacts]
    here = [on.name for on, runtime in ran if place_for(on, runtime, capped) == native()]

    assert sorted(profile.target for profile in built.report.profiles) == sorted(here)
    for profile in built.report.profiles:
        assert profile.before is not None
        assert profile.before.by_type[0].op_type == "Conv"
        assert profile.throughput[0].per_second > 0
        trace = json.loads((traces / f"{profile.target}.trace.json").read_bytes())
        assert any(event["name"] == "run 1" for event in trace["traceEvents"])
    assert {path.name for path in traces.iterdir()} == {f"{name}.trace.json" for name in here}


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe"])
def test_what_is_no_report_is_refused_with_a_code(tmp_path: Path, content: bytes | None) -> None:
    """Missing, damaged or foreign: one kind of error, and what to do."""
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)

    with pytest.raises(BuildError) as caught:
        read_report(tmp_path)

    assert caught.value.code is BuildCode.REPORT
    assert "stoker build" in caught.value.hint
