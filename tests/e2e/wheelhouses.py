"""Wheels for nodes that reach no package index, made by ``scripts/wheelhouse``."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cache import CHECKOUT, cached, content_of

_MADE_FROM: Final = (
    *("contract", "agent", "builder", "trust", "fleet", "cli"),
    *("pyproject.toml", "README.md", "scripts/wheelhouse"),
)


@dataclass(frozen=True, slots=True)
class Wheelhouses:
    """Folders of wheels, and the version of stoker that is in them."""

    version: str
    device: Path
    cloud: Path


def this_version() -> str:
    """The version in ``pyproject.toml``."""
    found = re.search(
        r'^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1]


def next_version() -> str:
    """A version after this one."""
    major, minor, _ = this_version().split(".")
    return f"{major}.{int(minor) + 1}.0"


def wheelhouses(version: str) -> Wheelhouses:
    """Wheels of this checkout, called by this version."""
    return Wheelhouses(version, _wheels("onnx", version), _wheels("fleet", version))


def _wheels(extras: str, version: str) -> Path:
    def make(folder: Path) -> None:
        done = subprocess.run(
            [
                *(CHECKOUT / "scripts/wheelhouse", "--extras", extras, "--python", "3.11"),
                *("--as-version", version, "--into", folder),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            msg = f"scripts/wheelhouse failed:\n{done.stderr[-2000:]}"
            raise RuntimeError(msg)

    recipe = f"{extras} {version}\0".encode() + content_of(*_MADE_FROM)
    return cached(f"wheels-{extras}-{version}", recipe, make)
