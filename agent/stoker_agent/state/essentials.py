"""What a lost journal must not take with it, in a second file beside it.

SQLite keeps a journal whole over power cuts; it can not keep it over a rotten sector. Without its
floors a device would take an older release again, and without its bad digests a broken one.
"""

import hashlib
from pathlib import Path
from typing import Final

import structlog
from pydantic import Field

from stoker_agent.state import durable
from stoker_contract.codes import ReasonCode
from stoker_contract.document import Document
from stoker_contract.errors import ContractError
from stoker_contract.names import Count, Sha256, ShortText

MAX_BYTES: Final = 1024**2

log: Final = structlog.get_logger("stoker.journal")


class Essentials(Document):
    """Numbers that never go down, and what is never to be started again.

    Attributes:
        payload_sha256: of the document of ``generation``; empty at first.
        held: whether a person on the device stopped all updates.
    """

    epoch: Count = 0
    generation: Count = 0
    payload_sha256: ShortText = ""
    floors: dict[ShortText, Count] = Field(default_factory=dict)
    bad_digests: dict[Sha256, ReasonCode] = Field(default_factory=dict)
    held: bool = False


class EssentialsFile:
    """One file, replaced durably, that knows when it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Essentials | None:
        """What it holds; None when it is not there or damaged."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("essentials.unreadable", path=str(self._path), reason=str(error))  # noqa: TRY400 - the trace says nothing more
            return None
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() == digest:
            try:
                return Essentials.parse(body, max_bytes=MAX_BYTES)
            except ContractError as error:
                reason = error.detail
        else:
            reason = "its bytes are not what was written"
        log.error("essentials.damaged", path=str(self._path), reason=reason)
        return None

    def write(self, essentials: Essentials) -> None:
        """Replace it, durably; what it holds already is left alone.

        Raises:
            OSError: it could not be written; the old one is untouched.
        """
        body = essentials.encode()
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        if not self._path.exists() or self._path.read_bytes() != data:
            durable.replace(self._path, data)
