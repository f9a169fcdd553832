"""Fleets of real processes, one for each broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_cli.broker.process import find_mosquitto
from support.fleet_of_processes import Fleet, running_fleet


@pytest.fixture
def fleet(short_tmp: Path) -> Iterator[Fleet]:
    """A fleet with mosquitto and client certificates."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with running_fleet(short_tmp, "mosquitto") as running:
        yield running


@pytest.fixture
def fleet_without_mosquitto(short_tmp: Path) -> Iterator[Fleet]:
    """A fleet with the broker from the registry: MQTT 3.1.1, no TLS."""
    with running_fleet(short_tmp, "in-process") as running:
        yield running
