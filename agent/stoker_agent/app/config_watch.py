"""Reads ``agent.toml`` again when it changes. A bad file is refused, and the old one is kept."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from stoker_agent.config import Config, load_config
from stoker_agent.errors import ConfigError

LIVE: Final = frozenset({"telemetry"})
"""Tables that take effect at once. Labels of the device do, too; the rest needs a restart."""

SETTLE_S: Final = 0.2
_CHANGES: Final = frozenset({"created", "modified", "moved", "closed", "deleted"})

log: Final = structlog.get_logger("stoker.config")


class ConfigWatch:
    """Watches the folder, since an editor replaces the file instead of writing into it."""

    def __init__(self, path: Path, config: Config, apply: Callable[[Config], None]) -> None:
        self._path = path
        self._config = config
        self._apply = apply

    async def run(self) -> None:
        """Watch for ever."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        observer = Observer()
        handler = _Handler(self._path.name, lambda: loop.call_soon_threadsafe(changed.set))
        observer.schedule(handler, str(self._path.parent))
        try:
            observer.start()
        except OSError as error:
            # The limit of inotify watches is shared by the machine; a restart reads the file, too.
            log.warning("config.not_watched", reason=str(error))
            return
        try:
            while True:
                await changed.wait()
                await asyncio.sleep(SETTLE_S)
                changed.clear()
                self.reload()
        finally:
            observer.stop()
            observer.join()

    def reload(self) -> None:
        """Take what may change at once; say what has to wait for a restart."""
        try:
            config = load_config(self._path)
        except ConfigError as error:
            log.error("config.refused", reason=str(error), effect="the old one is kept")  # noqa: TRY400 - the trace says nothing more
            return
        if config == self._config:
            return
        later = sorted(_changed_tables(self._config, config))
        self._config = config
        self._apply(config)
        log.info("config.reloaded", restart_needed_for=later)


def _changed_tables(before: Config, after: Config) -> set[str]:
    names = {name for name in Config.model_fields if name not in LIVE}
    same_labels = after.device.model_copy(update={"labels": before.device.labels})
    changed = {name for name in names if getattr(before, name) != getattr(after, name)}
    return changed - ({"device"} if same_labels == before.device else set())


class _Handler(FileSystemEventHandler):
    """Runs in a thread of the library: it only passes the word on."""

    def __init__(self, name: str, changed: Callable[[], object]) -> None:
        self._name = name
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something happened in the folder."""
        paths = (str(event.src_path), str(event.dest_path))
        if event.event_type in _CHANGES and any(Path(p).name == self._name for p in paths):
            self._changed()
