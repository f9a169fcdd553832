"""A run as its stories see it: the site, what is said about it, and what was promised and held."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.devices import AGENT, SERVER, STATE, Device, Serving
from e2e.fleet import SUCCEEDED, End
from e2e.netem import Condition
from e2e.playbooks import Playbooks
from e2e.releases import Releases
from e2e.site import Site
from e2e.wheelhouses import Wheelhouses
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.promises import Scorecard
from support.waiting import wait_until

SERVING_TIMEOUT_S: Final = 90


@dataclass
class Proof:
    """What every story is given."""

    site: Site
    playbooks: Playbooks
    wheels: Wheelhouses
    next_wheels: Wheelhouses
    narrator: Narrator
    scorecard: Scorecard
    folder: Path
    rng: random.Random

    @property
    def releases(self) -> Releases:
        """Where the next version comes from."""
        return self.site.releases

    @property
    def devices(self) -> dict[str, Device]:
        """The devices by name."""
        return self.site.devices

    def device(self, number: int) -> Device:
        """The device ``edge-<number>``."""
        return self.site.devices[f"edge-{number}"]

    def promise(self, text: str, measured: str, *, held: bool) -> None:
        """Write down a promise, what was measured, and whether it held."""
        self.narrator.promise(self.scorecard.add(text, measured, held=held))

    def fact(self, text: str) -> None:
        """Say something that was seen."""
        self.narrator.fact(text)

    # What stories do again and again.

    def roll_out(self, version: str, *devices: Device, options: tuple[str, ...] = ()) -> str:
        """Begin a quick rollout. Returns its id."""
        return self.site.fleet.roll_out(version, *(d.name for d in devices), more=options)

    def ends(self, rollout: str, timeout_s: float = 120) -> dict[str, End]:
        """How a rollout ended on each device."""
        return self.site.fleet.ends(rollout, timeout_s=timeout_s)

    def update(self, *devices: Device) -> str:
        """Bring a new good version to devices. Returns it.

        Raises:
            AssertionError: a device did not end with it.
        """
        version = self.releases.publish_next()
        ends = self.ends(self.roll_out(version, *devices))
        assert set(ends.values()) == {SUCCEEDED}, f"{version}: {shown(ends)}"
        return version

    def right_serving(self, device: Device) -> Serving | None:
        """What a device serves, if it gives the right answers from bytes that are whole."""
        found = device.serving(self.releases.frames)
        if found is None or found.digits != self.releases.right:
            return None
        known = self.releases.is_published(found.digest) and device.is_whole(found.digest)
        return found if known else None

    def wait_until_serving(self, device: Device, release: str | None = None) -> Serving:
        """Wait until a device gives right answers (from this release)."""
        seen: list[Serving] = []

        def serves() -> bool:
            found = self.right_serving(device)
            seen[:] = [found] if found else []
            return found is not None and release in {None, found.release}

        wait_until(serves, SERVING_TIMEOUT_S, f"{device.name} serves {release or 'something'}")
        return seen[0]

    def wait_for_download(self, device: Device) -> None:
        """Wait until some of an artifact has arrived, and not all of it."""
        incoming = device.node.root / STATE / "incoming"
        wait_until(
            lambda: any(part.stat().st_size for part in incoming.glob("*.part")),
            60,
            f"{device.name} downloads",
        )

    def single_words(self, devices: Iterable[Device]) -> tuple[int, int]:
        """Deployments that had an end at all, and those of them that had more than one."""
        counts = [count for d in devices for count in self.site.fleet.final_words(d.name).values()]
        return len(counts), sum(count != 1 for count in counts)

    def recover(self) -> None:
        """After a story that failed: give the next one a site that is whole."""
        for node in self.site.nodes:
            node.link.set(Condition())
            if node.leader is None:
                node.boot()
        for device in self.devices.values():
            device.node.ask("systemctl", "start", SERVER, AGENT)


def shown(ends: dict[str, End]) -> str:
    """Ends of a rollout in a few words."""
    different = set(map(str, ends.values()))
    if len(different) == 1:
        return f"{different.pop()} on {len(ends)}"
    return ", ".join(f"{name}: {end}" for name, end in ends.items())
