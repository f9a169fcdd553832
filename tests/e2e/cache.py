"""What takes long to make and follows from its recipe alone, kept between runs."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]
CACHE: Final = Path("/var/cache/stoker-e2e")
_KEPT: Final = 3
"""Of each name: another run may still use one that is not the newest."""


def cached(name: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` filled from this recipe, now or in an earlier run."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = CACHE / f".making-{name}"
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            os.sync()
            making.rename(folder)
        os.utime(folder)
        _forget_old(name)
    return folder


def _forget_old(name: str) -> None:
    found = sorted(CACHE.glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in found[:-_KEPT]:
        shutil.rmtree(folder)


def content_of(*names: str) -> bytes:
    """The names and bytes of all files below these places of the checkout, as a recipe."""
    parts = []
    for name in names:
        top = CHECKOUT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                parts += [str(path.relative_to(CHECKOUT)).encode(), path.read_bytes()]
    return b"\0".join(parts)
