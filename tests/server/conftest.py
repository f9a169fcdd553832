"""Servers for the stories: real processes, always ended."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server_process import FAULTY_ENGINE, ServerProcess


@pytest.fixture
def server(short_tmp: Path) -> Iterator[ServerProcess]:
    """A server that is not started yet; ended after the test."""
    process = ServerProcess(short_tmp)
    yield process
    process.end()


@pytest.fixture
def faulty_server(short_tmp: Path) -> Iterator[ServerProcess]:
    """As ``server``, with workers whose faults are named by their releases."""
    process = ServerProcess(short_tmp, engine=(sys.executable, str(FAULTY_ENGINE)))
    yield process
    process.end()
