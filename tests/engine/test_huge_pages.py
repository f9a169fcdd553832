"""What loading a model leaves in memory lies in huge pages, and needs no more memory for it."""

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from stoker_engine.huge_pages import Region, huge_page_bytes, in_huge_pages, without
from support import models
from support.engine_process import EngineProcess

MIB = 1 << 20
KERNEL = tuple(int(part) for part in re.findall(r"\d+", Path("/proc/version").read_text())[:2])

needs_huge_pages = pytest.mark.skipif(
    not huge_page_bytes() or KERNEL < (6, 1),
    reason="this kernel does not gather memory into huge pages when asked",
)


def private_memory(length: int, *, every: int) -> mmap.mmap:
    """Memory of a process, as an allocator gets it; one page in so many is used."""
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, length, every * mmap.PAGESIZE):
        memory[place] = content(place)
    return memory


def content(place: int) -> int:
    """What is written to a page."""
    return place // mmap.PAGESIZE % 251 + 1


def smaps_bytes(memory: mmap.mmap, field: str) -> int:
    """What the kernel says about the mappings in which some memory lies."""
    start = np.frombuffer(memory, np.uint8).ctypes.data
    end, total, inside = start + len(memory), 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) < end and int(found[2], 16) > start
        elif inside and line.startswith(f"{field}:"):
            total += int(line.split()[1]) * 1024
    return total


def of_process(pid: int, field: str) -> int:
    """What the kernel says about the memory of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@needs_huge_pages
def test_what_is_allocated_and_used_is_gathered() -> None:
    """It is what it was, page for page."""
    with in_huge_pages():
        memory = private_memory(16 * MIB, every=1)

    assert smaps_bytes(memory, "AnonHugePages") >= 8 * MIB
    places = range(0, len(memory), mmap.PAGESIZE)
    assert all(memory[place] == content(place) for place in places)


@needs_huge_pages
def test_what_is_hardly_used_stays_as_small_as_it_was() -> None:
    """One page in four used would be four times the memory."""
    with in_huge_pages():
        memory = private_memory(16 * MIB, every=4)
        used = smaps_bytes(memory, "Rss")

    assert smaps_bytes(memory, "AnonHugePages") == 0
    assert smaps_bytes(memory, "Rss") == used


@needs_huge_pages
@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_an_engine_has_its_weights_in_huge_pages(tmp_path: Path, runtime: Runtime) -> None:
    """From the first run on, in the process that serves."""
    spec = models.mlp(width=1 << 17).put(tmp_path, "m/1.0", SessionOptions(runtime=runtime))
    with EngineProcess(spec) as engine:
        engine.handshake()

        assert of_process(engine.process.pid, "AnonHugePages") >= spec.length // 2


def test_an_operator_who_wants_none_gets_none(tmp_path: Path) -> None:
    """``never`` is heeded, although the kernel would gather even then."""
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert huge_page_bytes(tmp_path) == 2 * MIB

    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert huge_page_bytes(tmp_path) == 0


def test_a_kernel_without_huge_pages_has_none(tmp_path: Path) -> None:
    """Nothing is there to be read, and nothing fails."""
    assert huge_page_bytes(tmp_path) == 0


@pytest.mark.parametrize(
    ("regions", "others", "left"),
    [
        ([(0, 4)], [], [(0, 4)]),
        ([(0, 4)], [(0, 4)], []),
        ([(2, 8)], [(0, 3), (4, 5), (7, 9)], [(3, 4), (5, 7)]),
        ([(0, 2), (4, 8)], [(1, 5)], [(0, 1), (5, 8)]),
        ([(4, 6)], [(0, 4), (6, 9)], [(4, 6)]),
    ],
)
def test_what_was_there_before_is_left_alone(
    regions: Sequence[Region], others: Sequence[Region], left: Sequence[Region]
) -> None:
    """Also where the kernel has made one mapping of old and new."""
    assert list(without(regions, others)) == left
