"""The director's root chain on this device: the bootstrap root, a cache, and the repository."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient.fetcher import FetcherInterface

from stoker_agent.core.trust import MAX_ROOT_BYTES, load_root, rotate_root
from stoker_agent.errors import TrustError
from stoker_agent.state import durable
from stoker_contract.codes import ReasonCode

MAX_ROTATIONS: Final = 256
_ABSENT: Final = frozenset({403, 404})

log: Final = structlog.get_logger("stoker.director")


class DirectorRoots:
    """Follows the director's root from the one that was provisioned to the newest there is.

    The cache is only a cache: each root in it is verified again from the provisioned one on.
    """

    def __init__(self, bootstrap: Path, cache: Path, url: str, fetcher: FetcherInterface) -> None:
        self._bootstrap = bootstrap
        self._cache = cache
        self._url = f"{url}/director"
        self._fetcher = fetcher
        self._current: Metadata[Root] | None = None

    def current(self) -> Metadata[Root]:
        """The newest root that is known here, without asking anybody.

        Raises:
            TrustError: ``ROOT_CHAIN``, the provisioned root can not be used.
        """
        if self._current is None:
            try:
                root = load_root(self._bootstrap.read_bytes())
            except OSError as error:
                detail = f"{self._bootstrap}: {error.strerror}; provision the director's root"
                raise TrustError(ReasonCode.ROOT_CHAIN, detail, final=False) from None
            self._current = self._follow(root, self._read)
        return self._current

    def refresh(self) -> TrustError | None:
        """Follow the chain as the repository has it; what hindered that, or None.

        A root that is offered and does not follow is an attack or a mistake; either way the
        chain that is known stays as it is.
        """
        try:
            self._current = self._follow(self.current(), self._download)
        except TrustError as error:
            log.warning("director.root_not_refreshed", code=error.code, detail=error.detail)
            return error
        return None

    def _follow(
        self, root: Metadata[Root], source: Callable[[int], bytes | None]
    ) -> Metadata[Root]:
        for _ in range(MAX_ROTATIONS):
            version = root.signed.version + 1
            data = source(version)
            if data is None:
                return root
            try:
                root = rotate_root(root, data)
            except TrustError:
                if source == self._read:
                    return root  # a torn cache
                raise
            if source == self._download:
                # Kept step by step, so that a later bad root does not undo the good ones.
                self._current = root
                self._keep(version, data)
        return root

    def _read(self, version: int) -> bytes | None:
        try:
            return (self._cache / f"{version}.root.json").read_bytes()
        except OSError:
            return None

    def _keep(self, version: int, data: bytes) -> None:
        with suppress(OSError):  # a full disk must not stop verification
            durable.make_directory(self._cache)
            durable.replace(self._cache / f"{version}.root.json", data)

    def _download(self, version: int) -> bytes | None:
        try:
            return self._fetcher.download_bytes(f"{self._url}/{version}.root.json", MAX_ROOT_BYTES)
        except DownloadHTTPError as error:
            if error.status_code in _ABSENT:
                return None
            raise TrustError(ReasonCode.NETWORK, str(error), final=False) from None
        except (DownloadError, OSError) as error:
            raise TrustError(ReasonCode.NETWORK, str(error), final=False) from None
