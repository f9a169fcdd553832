"""Keys, image repository and director root in one step: ``stoker key init``."""

from datetime import datetime
from pathlib import Path

from stoker_trust.director import Director
from stoker_trust.image_repository import ImageRepository
from stoker_trust.keys import INDEX, Keyring, create_dev_keyring, open_keyring


def init_dev(keys: Path, repository: Path, now: datetime) -> tuple[Keyring, bool]:
    """Make throw-away keys and an empty repository, or finish what was begun.

    Returns:
        The keys, and whether they are new. Keys that are there are used, never replaced.
    """
    new = not (keys / INDEX).exists()
    keyring = create_dev_keyring(keys) if new else open_keyring(keys)
    ImageRepository(repository, keyring).create(now)
    Director(keyring).create(repository, now)
    return keyring, new
