"""A build that is asked for again, and one that was interrupted, do not begin anew."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.cache import Cache
from stoker_builder.latency.candidates import Timings
from stoker_builder.latency.stats import Burst, summarise
from stoker_builder.latency.storage import from_arrays, to_arrays
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from support.tiny_build import MODELS, request_for
from support.waiting import wait_until


def entries(folder: Path) -> dict[str, int]:
    """What is kept, with the inode that a rewritten entry would change."""
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def rows(result: BuildResult) -> list[object]:
    """What was decided, and the figures that it rests on."""
    return [(r.target, r.name, r.rank, r.mark, r.accuracy, r.pace, r.fusion) for r in result.rows]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> tuple[Path, BuildResult]:
    """A folder in which one build was kept, and its result."""
    folder = tmp_path_factory.mktemp("cache")
    request = request_for(
        tmp_path_factory.mktemp("first") / "release", model=str(tiny_onnx), cache=folder / "kept"
    )
    return folder / "kept", build(request, Silence())


def test_the_same_build_again_finds_everything(
    kept: tuple[Path, BuildResult], tmp_path: Path, tiny_onnx: Path
) -> None:
    """Nothing is made or asked a second time, nor timed unless the machine was too busy."""
    folder, first = kept
    before = entries(folder)

    request = request_for(tmp_path / "release", model=str(tiny_onnx), cache=folder)
    second = build(request, Silence())

    added = {name.split("-")[0] for name in entries(folder).keys() - before.keys()}
    # who gets to the final depends on times
    assert added <= {"timings", "answers", "start", "golden", "inside"}
    assert {n: i for n, i in entries(folder).items() if n in before} == before
    if first.timings.conditions.quotable and not added:
        assert rows(second) == rows(first)
        manifest = "manifest.json"
        assert (second.output / manifest).read_bytes() == (first.output / manifest).read_bytes()


def test_another_question_is_not_answered_with_an_old_answer(
    kept: tuple[Path, BuildResult], tmp_path: Path, tiny_onnx: Path
) -> None:
    """Longer timing is measured; what it does not change is found."""
    folder, first = kept
    before = entries(folder)

    request = request_for(tmp_path / "release", model=str(tiny_onnx), cache=folder, latency_s=0.15)
    second = build(request, Silence())

    added = {name.split("-")[0] for name in entries(folder).keys() - before.keys()}
    # timings of a machine that is too busy are not kept; who gets to the final depends on them
    assert added <= {"timings", "answers", "start", "golden", "inside"}
    assert [r.accuracy for r in second.rows if r.name == "fp32"] == [
        r.accuracy for r in first.rows if r.name == "fp32"
    ]


def test_other_labels_are_other_samples(
    kept: tuple[Path, BuildResult], tmp_path: Path, tiny_onnx: Path
) -> None:
    """The same inputs without labels are judged anew."""
    folder, _ = kept
    before = entries(folder)

    request = request_for(
        tmp_path / "release", model=str(tiny_onnx), data=f"{MODELS}:unlabelled", cache=folder
    )
    build(request, Silence())

    assert any(name.startswith("answers-") for name in entries(folder).keys() - before.keys())


def test_a_build_that_was_killed_goes_on(tmp_path: Path, tiny_onnx: Path) -> None:
    """Killed in the middle, the next one finds what was finished, and nothing half-written."""
    folder, output = tmp_path / "kept", tmp_path / "release"
    command = [
        *(sys.executable, "-m", "stoker_cli.main", "build", "--model", str(tiny_onnx)),
        *("--data", f"{MODELS}:dataset", "--name", "tiny", "--version", "1.0.0", "--counter", "1"),
        *("--latency-s", "600", "--emulation-budget-s", "0", "--targets", "x86-64-v3"),
        *("--cache", str(folder), "--output", str(output)),
    ]
    paths = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            # the answers are kept before ten minutes of timing begin
            wait_until(lambda: folder.exists() and any(folder.glob("answers-*")), timeout_s=100)
        finally:
            process.send_signal(signal.SIGKILL)
    finished = {n for n in entries(folder) if not n.startswith(".new-")}

    result = build(
        request_for(output, model=str(tiny_onnx), targets=("x86-64-v3",), cache=folder), Silence()
    )

    assert not any(name.startswith("timings-") for name in finished)
    assert any(name.startswith("quantised-") for name in finished)
    assert {n for n in entries(folder) if n.startswith("quantised-")} <= finished
    assert result.output == output


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"\x00" * 100])
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, damage: bytes) -> None:
    """What can not be read is found out again, whatever is wrong with it."""
    cache = Cache(tmp_path)
    cache.keep_arrays(cache.key("a"), {"x": np.ones(3)})
    cache.keep_value(cache.key("v"), {"x": 1})
    for path in tmp_path.iterdir():
        path.write_bytes(damage)

    assert cache.arrays(cache.key("a")) is None
    assert cache.value(cache.key("v")) is None


def test_what_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    """A folder that holds other things keeps them, however little may be kept."""
    (tmp_path / "my-weights.safetensors").write_bytes(b"x" * 100)
    (tmp_path / ".new-mine").write_bytes(b"x")

    Cache(tmp_path, max_bytes=1)

    assert (tmp_path / "my-weights.safetensors").exists()
    assert (tmp_path / ".new-mine").exists()  # another build may be writing it


def test_a_folder_that_goes_away_ends_no_build(tmp_path: Path) -> None:
    """What can not be kept is not kept."""
    folder = tmp_path / "kept"
    cache = Cache(folder)
    folder.rmdir()
    cache.keep_value(cache.key("v"), 1)
    (tmp_path / "file").write_bytes(b"")
    other = Cache(tmp_path / "file")

    assert cache.value(cache.key("v")) is None
    assert other.value(other.key("v")) is None


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    """The same calls, and no file anywhere."""
    cache = Cache(None)
    cache.keep_value(cache.key("v"), 1)

    assert cache.value(cache.key("v")) is None
    assert not list(tmp_path.iterdir())


def test_the_folder_does_not_grow_for_ever(tmp_path: Path) -> None:
    """What was not used for longest goes first."""
    cache = Cache(tmp_path)
    for name, used in (("old", 1.0), ("new", 2.0)):
        cache.keep_value(cache.key(name), "x" * 1000)
        os.utime(tmp_path / cache.key(name), (used, used))

    again = Cache(tmp_path, max_bytes=1500)

    assert again.value(again.key("old")) is None
    assert again.value(again.key("new")) == "x" * 1000


def test_timings_are_read_as_they_were_written() -> None:
    """Every figure and every sample survives."""
    stats = summarise([Burst((10, 20, 30), 0.2, contaminated=True)] * 8, retried_bursts=3)
    timings = Timings({"fp32": stats, "int8": replace(stats, retried_bursts=1)}, measured_on="here")

    again = from_arrays(to_arrays(timings))

    assert again == timings
    assert again.stats["fp32"].samples_ms.tolist() == stats.samples_ms.tolist()
