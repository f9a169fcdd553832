"""The image repository: python-tuf's client, with our clock, our fetcher and our floors.

python-tuf writes its cache without fsync and takes an older repository when the cache is torn,
so versions are compared again with floors from the journal.
"""

import errno
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from stoker_agent.core.ports import Floors
from stoker_agent.core.trust import role_fingerprint
from stoker_agent.errors import TrustError
from stoker_agent.state import durable
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef

T = TypeVar("T")

ROLES: Final = (Timestamp.type, Snapshot.type, Targets.type)
_LIMITS: Final = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)
ROOT: Final = "root"
_NO_CHAIN: Final = frozenset({ReasonCode.NETWORK, ReasonCode.EXPIRED})
# The most special first. None of them is final: it is the mirror that speaks, not the director.
_CODES: Final[tuple[tuple[type[Exception], ReasonCode], ...]] = (
    (DownloadError, ReasonCode.NETWORK),
    (ExpiredMetadataError, ReasonCode.EXPIRED),
    (BadVersionNumberError, ReasonCode.BELOW_FLOOR),
    (LengthOrHashMismatchError, ReasonCode.DIGEST_MISMATCH),
    (UnsignedMetadataError, ReasonCode.SIGNATURE),
    (DeserializationError, ReasonCode.MALFORMED),
    (RepositoryError, ReasonCode.MIX_AND_MATCH),
)


class ImageRepository:
    """What may ever run, as of one refresh. Make a new one for each verification."""

    def __init__(
        self, bootstrap: Path, cache: Path, url: str, fetcher: FetcherInterface, now: datetime
    ) -> None:
        self._url = url
        self._fetcher = fetcher
        self._updater = _guarded(lambda: self._open(bootstrap, cache), ROOT)
        self._trusted = self._updater._trusted_set  # noqa: SLF001 - it has no other way to take a clock
        self._trusted.reference_time = now

    @property
    def timestamp_expires(self) -> datetime:
        """Until when the repository vouches for its newest state."""
        return self._trusted.timestamp.expires

    def refresh(self, floors: Floors) -> dict[str, int]:
        """Bring the metadata up to date; returns the floors it stands for.

        Raises:
            TrustError: never final; ``NETWORK``, ``EXPIRED``, ``BELOW_FLOOR``, ``ROOT_CHAIN``,
                ``SIGNATURE``, ``DIGEST_MISMATCH``, ``MALFORMED`` or ``MIX_AND_MATCH``.
        """
        _guarded(self._updater._load_root, ROOT)  # noqa: SLF001 - to tell a bad root from the rest
        _guarded(self._updater.refresh, "metadata")
        raised: dict[str, int] = {}
        versions: list[tuple[str, str, Signed]] = [
            ("image.root", Root.type, self._trusted.root),
            *((self._floor_name(role), role, self._trusted[role]) for role in ROLES),
        ]
        for name, role, signed in versions:
            floor = floors.floor(name)
            if signed.version < floor:
                detail = (
                    f"the image repository's {role} has version {signed.version}, this device has"
                    f" seen {floor}; the mirror is old or somebody rolled it back"
                )
                raise TrustError(ReasonCode.BELOW_FLOOR, detail, final=False)
            raised[name] = signed.version
        return raised

    def target(self, path: str) -> TargetFile | None:
        """What the repository says about a file; None if it does not know it.

        Raises:
            TrustError: as :meth:`refresh`.
        """
        return _guarded(lambda: self._updater.get_targetinfo(path), path)

    def download(self, ref: FileRef, target: TargetFile) -> bytes:
        """The bytes of a small file, verified.

        Raises:
            TrustError: ``NETWORK`` or ``DIGEST_MISMATCH``, not final.
        """

        def fetch() -> bytes:
            folder, _, name = ref.path.rpartition("/")
            url = f"{self._url}/targets/{quote(folder)}/{ref.digest}.{quote(name)}"
            data = self._fetcher.download_bytes(url, ref.length)
            target.verify_length_and_hashes(data)
            return data

        return _guarded(fetch, ref.path)

    def _open(self, bootstrap: Path, cache: Path) -> Updater:
        durable.make_directory(cache)
        return Updater(
            str(cache),
            f"{self._url}/metadata",
            fetcher=self._fetcher,
            config=_LIMITS,
            bootstrap=bootstrap.read_bytes(),
        )

    def _floor_name(self, role: str) -> str:
        # With the fingerprint of the role's keys: rotating them by a new root starts a new floor,
        # which is how a repository recovers after somebody signed a very high version.
        return f"image.{role}.{role_fingerprint(self._trusted.root, role)}"


def _guarded(step: Callable[[], T], what: str) -> T:
    """Run a step of python-tuf; whatever it raises becomes a ``TrustError``."""
    try:
        return step()
    except TrustError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = ReasonCode.DISK_SPACE if full else ReasonCode.INTERNAL
        raise TrustError(code, f"{what}: {error}", final=False) from None
    except Exception as error:  # noqa: BLE001 - a mirror must not choose how we fail
        code = next((c for kind, c in _CODES if isinstance(error, kind)), ReasonCode.MALFORMED)
        if what == ROOT and code not in _NO_CHAIN:
            code = ReasonCode.ROOT_CHAIN
        detail = f"image repository, {what}: {str(error) or type(error).__name__}"
        raise TrustError(code, detail, final=False) from None
