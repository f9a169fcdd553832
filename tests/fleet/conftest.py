"""A fleet with a real mosquitto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_cli.broker.process import Broker, find_mosquitto
from support.fleet_site import FleetSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FleetSite]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with Broker(tmp_path / "broker", program="mosquitto") as broker:
        site = FleetSite(tmp_path / "site", broker)
        yield site
        site.close()
