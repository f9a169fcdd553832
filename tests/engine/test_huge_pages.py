"""What loading a model leaves in memory lies in huge pages, and needs no more memory for it."""

import ctypes
import mmap
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from stoker_engine.huge_pages import gather_into_huge_pages, huge_page_bytes
from support import models
from support.engine_process import EngineProcess

MIB = 1 << 20
LENGTH = 16 * MIB
RUNTIMES = [Runtime.ONNXRUNTIME, Runtime.OPENVINO]


def private_memory(*, written: int, read: int = 0) -> mmap.mmap:
    """Memory of a process: of each so many pages one is written, or only read."""
    memory = mmap.mmap(-1, LENGTH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTFORK)  # or the kernel makes one mapping of it and a neighbour
    for place in range(0, LENGTH, written * mmap.PAGESIZE):
        memory[place] = content(place)
    if read:
        assert sum(memory[place] for place in range(0, LENGTH, read * mmap.PAGESIZE))
    return memory


def content(place: int) -> int:
    """What is written to a page."""
    return place // mmap.PAGESIZE % 251 + 1


def said_of(memory: mmap.mmap, field: str) -> int:
    """What the kernel says about some memory, in bytes."""
    start = np.frombuffer(memory, np.uint8).ctypes.data
    text = Path("/proc/self/smaps").read_text(errors="replace")
    found = re.search(rf"^{start:x}-.*?^{field}:\s+(\d+) kB", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return int(found[1]) * 1024


def of_process(pid: int | str, field: str) -> int:
    """What the kernel says about the memory of a process, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def gathers_here() -> bool:
    """Whether the kernel gathers when it is asked to."""
    if huge_page_bytes() != 2 * MIB:
        return False
    memory = private_memory(written=1)
    start = -(-np.frombuffer(memory, np.uint8).ctypes.data // (2 * MIB)) * 2 * MIB
    collapse = ctypes.CDLL(None).madvise
    return bool(collapse(ctypes.c_void_p(start), ctypes.c_size_t(2 * MIB), 25) == 0)


@pytest.fixture(scope="module")
def _huge_pages() -> None:
    if not gathers_here():
        pytest.skip("this kernel does not gather memory into huge pages of 2 MiB")


needs_huge_pages = pytest.mark.usefixtures("_huge_pages")


@needs_huge_pages
def test_what_is_used_is_gathered() -> None:
    """It is what it was, page for page."""
    memory = private_memory(written=1)

    gather_into_huge_pages()

    assert said_of(memory, "AnonHugePages") >= LENGTH // 2
    places = range(0, LENGTH, mmap.PAGESIZE)
    assert all(memory[place] == content(place) for place in places)


@needs_huge_pages
@pytest.mark.parametrize(("written", "read"), [(2, 0), (4, 0), (512, 1)])
def test_what_is_hardly_used_stays_as_small_as_it_was(written: int, read: int) -> None:
    """Pages that nobody touched, or that were only read, would cost memory."""
    memory = private_memory(written=written, read=read)
    before = [said_of(memory, field) for field in ("Rss", "AnonHugePages")]

    gather_into_huge_pages()

    assert [said_of(memory, field) for field in ("Rss", "AnonHugePages")] == before


@needs_huge_pages
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_has_its_weights_in_huge_pages(tmp_path: Path, runtime: Runtime) -> None:
    """From the first run on, in the process that serves; and it answers what it would without."""
    spec = models.mlp(width=1 << 17).put(tmp_path, "m/1.0", SessionOptions(runtime=runtime))
    x = np.random.default_rng(0).normal(size=(1, 1 << 17)).astype(np.float32)
    expected = onnxruntime.InferenceSession(spec.path).run(None, {"x": x})[0]
    with EngineProcess(spec) as engine:
        engine.handshake()
        huge = of_process(engine.process.pid, "AnonHugePages")
        engine.send_run(1, [x])

        assert huge >= spec.length // 2
        np.testing.assert_allclose(engine.output(), expected, rtol=1e-3, atol=1e-2)


IN_A_PROCESS = """
import ctypes, sys
from pathlib import Path
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind
from stoker_engine.backends import open_engine

def huge():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.split("AnonHugePages:")[1].split()[0]) * 1024

path, runtime, refuses = sys.argv[1:]
if refuses == "refuses":
    assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0  # no huge pages for this process
for _ in range(3):
    engine = open_engine(path, ArtifactKind.ONNX, SessionOptions.parse_object({"runtime": runtime}))
    print(huge())
    engine.close()
    del engine
"""


def opened_three_times(path: str, runtime: Runtime, refuses: str = "") -> Iterator[int]:
    """What one process has in huge pages each time that it has opened an engine."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, path, runtime, refuses],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    yield from map(int, done.stdout.split())


@needs_huge_pages
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_so_has_each_engine_that_a_process_opens(tmp_path: Path, runtime: Runtime) -> None:
    """A build opens one after the other, and the next one lies where the last one was."""
    spec = models.mlp(width=1 << 17).put(tmp_path, "m/1.0")

    assert min(opened_three_times(spec.path, runtime)) >= spec.length // 2


@needs_huge_pages
def test_a_kernel_that_refuses_is_no_error(tmp_path: Path) -> None:
    """As one does before Linux 6.1: engines are opened as before."""
    spec = models.mlp(width=1 << 17).put(tmp_path, "m/1.0")

    assert list(opened_three_times(spec.path, Runtime.ONNXRUNTIME, "refuses")) == [0, 0, 0]


@needs_huge_pages
def test_the_name_of_a_mapped_file_is_not_looked_at(tmp_path: Path) -> None:
    """Whatever bytes it has."""
    odd = bytes(tmp_path) + b"/caf\xe9\rx rw-p"
    with open(odd, "w+b") as stream:  # noqa: PTH123  a Path has no such name
        stream.write(b"x" * mmap.PAGESIZE)
        stream.flush()
        mapped = mmap.mmap(stream.fileno(), mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
    memory = private_memory(written=1)

    gather_into_huge_pages()

    assert said_of(memory, "AnonHugePages") >= LENGTH // 2
    mapped.close()


def test_an_operator_who_wants_none_gets_none(tmp_path: Path) -> None:
    """``never`` is heeded, although the kernel would gather even then."""
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    memory = private_memory(written=1)
    before = said_of(memory, "AnonHugePages")

    gather_into_huge_pages(tmp_path)

    assert huge_page_bytes(tmp_path) == 0
    assert said_of(memory, "AnonHugePages") == before
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert huge_page_bytes(tmp_path) == 2 * MIB


def test_a_kernel_without_huge_pages_is_no_error(tmp_path: Path) -> None:
    """There is nothing to be read."""
    gather_into_huge_pages(tmp_path)

    assert huge_page_bytes(tmp_path) == 0
