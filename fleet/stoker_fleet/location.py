"""Where the configuration of a fleet is looked for."""

from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "STOKER_FLEET_CONFIG"
DEFAULT_PATH: Final = Path("fleet.toml")
