"""A fleet with a real mosquitto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fleet_site import FleetSite, fleet_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FleetSite]:
    with fleet_site(tmp_path) as site:
        yield site
