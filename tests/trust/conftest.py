"""A repository with throw-away keys."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from stoker_trust.image_repository import ImageRepository
from stoker_trust.initialise import init_dev
from stoker_trust.keys import Keyring


@pytest.fixture
def now() -> datetime:
    # The TUF client reads the real clock, so what is signed has to be fresh.
    return datetime.now(UTC)


@pytest.fixture
def keyring(tmp_path: Path, now: datetime) -> Keyring:
    return init_dev(tmp_path / "keys", tmp_path / "repository", now)[0]


@pytest.fixture
def repository(tmp_path: Path, keyring: Keyring) -> ImageRepository:
    return ImageRepository(tmp_path / "repository", keyring)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "repository"
