"""The start of a worker that is given up in the middle."""

import asyncio
from contextlib import suppress
from pathlib import Path

from stoker_server.launch import Launch
from stoker_server.settings import Settings
from stoker_server.worker import Worker
from support import models
from support.waiting import eventually

MIB = 1024 * 1024


def test_a_load_that_is_given_up_in_its_copy_leaves_no_copy_behind(short_tmp: Path) -> None:
    """The sealed memory of an artifact is as large as the artifact: nobody may forget it."""
    spec = models.scale(2).put(short_tmp / "store", "m/1.0")
    large = short_tmp / "large"
    with large.open("wb") as file:
        file.truncate(256 * MIB)
    spec = spec.model_copy(update={"path": str(large), "length": 256 * MIB})

    async def story() -> None:
        settings = Settings(short_tmp / "state", short_tmp / "run")
        starting = asyncio.create_task(Worker.start(spec, settings, Launch(timeout_s=30)))
        await eventually(_copies, "the copy is being made")
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        await eventually(lambda: not _copies(), "no copy is left")

    asyncio.run(story())


def _copies() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [name for name in found if "stoker-artifact" in name]
