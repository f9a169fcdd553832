"""``slots/<slot>.json``: the only truth of what serves after a boot."""

from pathlib import Path
from typing import Final

import structlog

from stoker_agent.state import durable
from stoker_agent.state.reserve import Reserve, even_when_full
from stoker_contract.engine import SlotFile
from stoker_contract.errors import ContractError

log: Final = structlog.get_logger("stoker.slots")


class SlotFiles:
    """The slot files of a device, each with a copy that is written after it.

    The server reads them, only the agent writes them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.reserve = Reserve(directory.parent / "reserve")
        durable.make_directory(directory)

    def read(self, slot: str) -> SlotFile | None:
        """One slot, or None when nothing was committed to it (or it can not be read).

        Of a file that is damaged or lost its copy is read.
        """
        return _read(self._path(slot)) or _read(self._copy(slot))

    def read_all(self) -> dict[str, SlotFile]:
        """Every slot by name."""
        found = {name: self.read(name) for name in self._names()}
        return {name: file for name, file in found.items() if file is not None}

    def unreadable(self) -> bool:
        """Whether there is a slot file that can not be read, so that what it names is not known."""
        return len(self._names()) != len(self.read_all())

    @even_when_full
    def replace(self, file: SlotFile) -> None:
        """Make a slot file durable; one that is the same already is left alone.

        Raises:
            OSError: it could not be written, not even with the reserve given up.
        """
        data = file.encode()
        for path in (self._path(file.slot), self._copy(file.slot)):
            if not path.exists() or path.read_bytes() != data:
                durable.replace(path, data)

    def mend(self) -> None:
        """Write again what is damaged or lost, of a slot whose other file is whole.

        Raises:
            OSError: it could not be written.
        """
        for name, file in self.read_all().items():
            path = self._path(name)
            if _read(path) != file:
                log.error("slot.mended", path=str(path), release=file.current.release)
            self.replace(file)

    def remove(self, slot: str) -> None:
        """Forget a slot: nothing serves it after the next boot."""
        durable.remove(self._copy(slot))  # first: a copy alone stands for a file that was lost
        durable.remove(self._path(slot))

    def _names(self) -> list[str]:
        """Slots that have a file or a copy."""
        files = [path.stem for path in self._directory.glob("[a-z0-9]*.json")]
        copies = [path.stem for path in self._directory.glob("[a-z0-9]*.json.copy")]
        return sorted({*files, *(name.removesuffix(".json") for name in copies)})

    def _copy(self, slot: str) -> Path:
        return self._directory / f"{slot}.json.copy"

    def _path(self, slot: str) -> Path:
        return self._directory / f"{slot}.json"


def _read(path: Path) -> SlotFile | None:
    try:
        return SlotFile.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ContractError as error:
        # Not a reason to stop: there is a copy, and the next commit replaces both.
        log.error("slot.unreadable", path=str(path), code=error.code, detail=error.detail)  # noqa: TRY400 - the trace says nothing more
        return None
