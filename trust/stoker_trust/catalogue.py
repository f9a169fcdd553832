"""Reading an image repository as a device does: through a TUF client, from a folder or a URL."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Manifest
from stoker_trust import durable
from stoker_trust.errors import TrustError
from stoker_trust.release_folder import MANIFEST

_NOT_FOUND = 404


@dataclass(frozen=True)
class Release:
    """A release of the repository, verified from its root down to the manifest's bytes."""

    manifest: Manifest
    file: FileRef


class Catalogue:
    """The releases of an image repository.

    Args:
        repository: a folder, or the URL that serves it.
        anchor: the first root, as bytes.
        cache: a folder for what was verified before; it keeps the repository from going back.
    """

    def __init__(self, repository: str, anchor: bytes, cache: Path) -> None:
        remote = repository.startswith(("http://", "https://"))
        self._url = (repository if remote else Path(repository).resolve().as_uri()).rstrip("/")
        self._fetcher = None if remote else _FolderFetcher()
        self._anchor = anchor
        self._cache = cache

    def release(self, name: str) -> Release:
        """Find ``model/version``.

        Raises:
            TrustError: the repository can not be read (``NETWORK``) or verified (``SIGNATURE``),
                or there is no such release (``BAD_REQUEST``).
        """
        path = f"{name}/{MANIFEST}"
        self._cache.mkdir(parents=True, exist_ok=True)
        try:
            updater = Updater(
                str(self._cache),
                f"{self._url}/metadata/",
                target_base_url=f"{self._url}/targets/",
                fetcher=self._fetcher,
                bootstrap=self._anchor,
            )
            info = updater.get_targetinfo(path)
            if info is None:
                raise _unknown(name)
            # A folder of its own: somebody else may be reading the same release just now.
            with TemporaryDirectory() as folder:
                file = updater.download_target(info, str(Path(folder) / MANIFEST))
                data = Path(file).read_bytes()
            manifest = Manifest.parse(data)
        except DownloadError as error:
            raise TrustError(ReasonCode.NETWORK, f"{self._url}: {error}") from None
        except RepositoryError as error:
            raise TrustError(ReasonCode.SIGNATURE, f"{self._url}: {error}") from None
        except ContractError as error:
            raise TrustError(error.code, f"{path}: {error.detail}") from None
        if manifest.release != name:
            detail = f"{path} describes {manifest.release}"
            raise TrustError(ReasonCode.MIX_AND_MATCH, detail)
        return Release(
            manifest, FileRef(path=path, digest=info.hashes["sha256"], length=info.length)
        )


def _unknown(name: str) -> TrustError:
    hint = "`stoker repository list` shows what is published."
    return TrustError(ReasonCode.BAD_REQUEST, f"there is no release {name}", hint=hint)


class _FolderFetcher(FetcherInterface):
    """What ``file:`` URLs need to be read as HTTP ones are."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(unquote(urlsplit(url).path))
        if not path.is_file():
            message = f"{path} is missing"
            raise DownloadHTTPError(message, _NOT_FOUND)
        return durable.read_chunks(path)
