"""Weights in huge pages.

Each run reads all weights of a model. In pages of 4 KiB there are more addresses to look up than a
processor remembers, and each that it forgot costs it a walk through a table. Runtimes allocate
weight by weight, each too small for the kernel to think of a huge page. So what is in memory once a
model has been loaded is gathered into huge pages, where that needs next to no further memory.

Nothing here is an error: without huge pages a model is served as well, if at times more slowly.
"""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

_SETTINGS: Final = Path("/sys/kernel/mm/transparent_hugepage")
_MADV_COLLAPSE: Final = 25  # since Linux 6.1; Python has no name for it
_OWN: Final = np.uint64(1 << 63 | 1 << 56)  # present, and of this process alone: no page of zeros
_ENTRY_BYTES: Final = 8  # of a page, in /proc/self/pagemap
_USED_SHARE: Final = 0.75  # where less is in use, gathering would need too much more
_WINDOW_BYTES: Final = 32 << 20  # looked through at once; a multiple of every huge page
_LARGEST: Final = _WINDOW_BYTES  # a quarter of a larger one is too much to waste

_libc = ctypes.CDLL(None)


def gather_into_huge_pages(settings: Path = _SETTINGS) -> None:
    """Gather what this process has in memory, where it uses enough of it.

    Args:
        settings: where the kernel says what is wanted here.
    """
    # a sandbox may hide what is read, and the memory of a process may be limited
    with suppress(OSError, ValueError, MemoryError):
        size = huge_page_bytes(settings)
        if not 0 < size <= _LARGEST:
            return
        regions = list(_regions())
        with Path("/proc/self/pagemap").open("rb", buffering=0) as table:
            for start, end in regions:
                for window in range(-(-start // size) * size, end - size + 1, _WINDOW_BYTES):
                    _gather(table, window, min(window + _WINDOW_BYTES, end), size)


def huge_page_bytes(settings: Path = _SETTINGS) -> int:
    """The size of a huge page; 0 where there are none, or where none are wanted."""
    try:
        if "[never]" in (settings / "enabled").read_text():
            return 0
        return int((settings / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def _regions() -> Iterator[tuple[int, int]]:
    """The memory of this process that can be written and belongs to no file: from, and until."""
    with Path("/proc/self/maps").open("rb") as maps:
        for line in maps:
            addresses, access, _, _, inode = line.split(maxsplit=5)[:5]
            if access == b"rw-p" and inode == b"0":
                start, end = addresses.split(b"-")
                yield int(start, 16), int(end, 16)


def _gather(table: IO[bytes], start: int, end: int, size: int) -> None:
    """Gather a window that begins where a huge page can."""
    count, pages = (end - start) // size, size // mmap.PAGESIZE
    table.seek(start // mmap.PAGESIZE * _ENTRY_BYTES)
    entries = np.frombuffer(table.read(count * pages * _ENTRY_BYTES), np.uint64)
    whole = entries[: len(entries) // pages * pages].reshape(-1, pages)
    used = ((whole & _OWN) == _OWN).mean(axis=1) >= _USED_SHARE
    for first, behind in _stretches(used):
        address, length = start + first * size, (behind - first) * size
        # an older kernel refuses, and one without free huge pages does what it can
        _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_COLLAPSE)


def _stretches(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The first that is set and the first behind it that is not, again and again."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)
