"""Fixtures that every part may use."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DEAR = ("built",)
"""Fixtures of a whole run that take long to make: what needs one stays in one process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together when several processes share them: those of a file."""
    for item in items:
        needed = getattr(item, "fixturenames", ())
        own = f"{item.path.parent.name}/{item.path.name}"
        group = next((name for name in _DEAR if name in needed), own)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary folder with a short path: a Unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="stk", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
