"""Weights in huge pages.

Each run reads all weights of a model. In pages of 4 KiB there are more addresses to look up than a
processor remembers, and each that it forgot costs it a walk through a table. Runtimes allocate
weight by weight, each too small for the kernel to think of a huge page. So what is in memory once a
model has been loaded is gathered into huge pages, where that needs next to no further memory.

Nothing here is an error: without huge pages a model is served as well, if at times more slowly.
"""

import ctypes
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SETTINGS: Final = Path("/sys/kernel/mm/transparent_hugepage")
_MADV_COLLAPSE: Final = 25  # since Linux 6.1; Python has no name for it
_PRESENT: Final = np.uint64(1 << 63)
_ENTRY_BYTES: Final = 8  # of a page, in /proc/self/pagemap
_USED_SHARE: Final = 0.75  # where less is in use, gathering would need too much more
_WINDOW_BYTES: Final = 1 << 30  # looked through at once

Region = tuple[int, int]
"""The address where it begins, and the first behind it."""

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def in_huge_pages() -> Iterator[None]:
    """Gather what the block allocates and leaves in memory."""
    size = huge_page_bytes()
    if not size:
        yield
        return
    before = list(_regions())
    yield
    with suppress(OSError):  # a sandbox may hide /proc
        for start, end in without(_regions(), before):
            for window in range(-(-start // size) * size, end, _WINDOW_BYTES):
                _gather(window, min(window + _WINDOW_BYTES, end), size)


def huge_page_bytes(settings: Path = _SETTINGS) -> int:
    """The size of a huge page; 0 where there are none, or where none are wanted."""
    try:
        if "[never]" in (settings / "enabled").read_text():
            return 0
        return int((settings / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def without(regions: Iterable[Region], others: Sequence[Region]) -> Iterator[Region]:
    """What of the regions is in none of the others. All are in rising order."""
    for region in regions:
        start, end = region
        for low, high in others:
            if high <= start or low >= end:
                continue
            if start < low:
                yield start, low
            start = high
        if start < end:
            yield start, end


def _regions() -> Iterator[Region]:
    """The memory of this process that can be written and belongs to no file."""
    with suppress(OSError), Path("/proc/self/maps").open() as maps:
        for line in maps:
            addresses, access, _, _, inode = line.split(maxsplit=5)[:5]
            if access == "rw-p" and inode == "0":
                start, end = addresses.split("-")
                yield int(start, 16), int(end, 16)


def _gather(start: int, end: int, size: int) -> None:
    """Gather what is in use enough from an address at which a huge page can begin."""
    count, pages = (end - start) // size, size // mmap.PAGESIZE
    with Path("/proc/self/pagemap").open("rb", buffering=0) as table:
        table.seek(start // mmap.PAGESIZE * _ENTRY_BYTES)
        entries = np.frombuffer(table.read(count * pages * _ENTRY_BYTES), np.uint64)
    whole = entries[: len(entries) // pages * pages].reshape(-1, pages)
    used = ((whole & _PRESENT) != 0).mean(axis=1) >= _USED_SHARE
    for first, behind in _stretches(used):
        address, length = start + first * size, (behind - first) * size
        # older kernels refuse, and one without free huge pages does what it can
        _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_COLLAPSE)


def _stretches(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The first that is set and the first behind it that is not, again and again."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)
