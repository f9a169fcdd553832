"""The verifier against a real web server: what a hostile broker, mirror or key thief can not do."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stoker_agent.core.ports import VerifiedDesired
from stoker_agent.core.trust import Addressee
from stoker_agent.errors import TrustError
from stoker_agent.trust.verifier import TrustSettings, Verifier
from support.tuf_repository import NOW, Fleet, make_release, served


@dataclass
class FixedClock:
    """A clock that a test sets."""

    unix: float = NOW.timestamp()
    monotonic: float = 0.0

    def unix_s(self) -> float:
        """The time of day."""
        return self.unix

    def monotonic_s(self) -> float:
        """The time that passed."""
        return self.monotonic


@dataclass
class MemoryFloors:
    """Floors without a disk."""

    values: dict[str, int] = field(default_factory=dict)
    accepted: tuple[int, str] = (0, "")

    def generation(self) -> tuple[int, str]:
        """The accepted generation and its bytes' hash."""
        return self.accepted

    def floor(self, name: str) -> int:
        """A floor by name."""
        return self.values.get(name, 0)

    def accept(self, verified: VerifiedDesired) -> None:
        """What the journal does when an intent is accepted."""
        self.accepted = (verified.generation, verified.payload_sha256)
        for name, value in verified.floors.items():
            self.values[name] = max(self.values.get(name, 0), value)


@dataclass
class Device:
    """A device's verifier with its surroundings."""

    fleet: Fleet
    url: str
    folder: Path
    clock: FixedClock = field(default_factory=FixedClock)
    floors: MemoryFloors = field(default_factory=MemoryFloors)
    allow_dev: bool = False

    def __post_init__(self) -> None:
        self.anchors = self.fleet.anchors(self.folder / "trust")
        self.restart()

    def restart(self) -> None:
        """A new process with the same disk."""
        image, director = self.anchors
        settings = TrustSettings(
            me=Addressee("edge-1", "demo"),
            url=self.url,
            image_root=image,
            director_root=director,
            cache=self.folder / "tuf",
            allow_dev=self.allow_dev,
        )
        self.verifier = Verifier(settings, self.floors, self.clock)

    def take(self, payload: bytes) -> VerifiedDesired:
        """Verify and accept."""
        verified = self.verifier.verify_now(payload)
        self.floors.accept(verified)
        return verified

    def refuse(self, payload: bytes) -> TrustError:
        """Verify what must be refused."""
        before = dict(self.floors.values), self.floors.accepted
        with pytest.raises(TrustError) as refused:
            self.verifier.verify_now(payload)
        assert (self.floors.values, self.floors.accepted) == before
        return refused.value


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> Iterator[Device]:
    with served(fleet) as url:
        yield Device(fleet, url, tmp_path)


def test_what_both_roots_vouch_for_is_taken(device: Device, fleet: Fleet) -> None:
    """A release that is published and asked for is verified, with its manifest and floors."""
    release = fleet.publish(make_release(counter=5, min_counter=3))

    verified = device.take(fleet.desire(release, 7))

    assert verified.generation == 7
    assert verified.desired.slots["detector"].release == "photos/1.0.0"
    assert verified.manifests == {"detector": release.manifest}
    assert verified.floors["counter.photos"] == 3
    assert verified.floors["director.root"] == 1
    assert verified.floors["image.root"] == 1
    assert verified.floors["clock"] == int(NOW.timestamp())
