"""A store, and a service over it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_builder.workers.store import JobStore
from support.build_service import Service, running_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with an empty store."""
    store = JobStore(tmp_path / "builds", time.monotonic)
    with running_service(store) as running:
        yield running
    store.close()
