"""A configuration that changes while the agent runs."""

import asyncio
import itertools
from pathlib import Path

from stoker_agent.app.config_watch import ConfigWatch
from stoker_agent.config import Config, load_config
from support.waiting import eventually

TEXT = """
[device]
id = "edge-1"
fleet = "demo"
labels = {{ site = "{site}" }}
[repository]
url = "http://127.0.0.1:1"
[telemetry]
interval_s = {interval_s}
"""


def write(path: Path, site: str = "berlin", interval_s: float = 60) -> None:
    """Replace the file as an editor does."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(TEXT.format(site=site, interval_s=interval_s))
    temporary.replace(path)


def test_a_change_is_taken_and_a_bad_file_is_not(tmp_path: Path) -> None:
    """The agent never ends because of a mistake in a file that it could read before."""
    path = tmp_path / "agent.toml"
    write(path)
    applied: list[Config] = []
    intervals = itertools.count(10)

    def change() -> bool:
        # The watch begins some time after its task does: write until it is seen.
        write(path, interval_s=next(intervals))
        return bool(applied)

    async def story() -> None:
        watch = ConfigWatch(path, load_config(path), applied.append)
        task = asyncio.create_task(watch.run())
        try:
            await eventually(change, "the first change")
            path.write_text("[device\n")
            write(path, site="oslo", interval_s=5)
            await eventually(lambda: applied[-1].telemetry.interval_s == 5, "the last change")
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(story())

    assert applied[-1].device.labels == {"site": "oslo"}


def test_the_same_again_and_garbage_change_nothing(tmp_path: Path) -> None:
    """Only a valid file that differs is applied."""
    path = tmp_path / "agent.toml"
    write(path)
    applied: list[Config] = []
    watch = ConfigWatch(path, load_config(path), applied.append)
    watch.reload()
    path.write_text("[device\n")
    watch.reload()
    assert applied == []
    write(path, interval_s=7)
    watch.reload()

    assert [config.telemetry.interval_s for config in applied] == [7]
