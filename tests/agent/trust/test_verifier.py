"""The verifier against a real web server: what a hostile broker, mirror or key thief can not do."""

import asyncio
import gzip
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from stoker_agent.core.ports import VerifiedDesired
from stoker_agent.core.trust import Addressee
from stoker_agent.errors import TrustError
from stoker_agent.trust.fetch import FetchLimits
from stoker_agent.trust.verifier import TrustSettings, Verifier
from stoker_contract.codes import ReasonCode
from support.tuf_repository import (
    NOW,
    Answer,
    Fleet,
    Release,
    make_release,
    make_root,
    new_keys,
    served,
    sign,
)
from support.waiting import eventually


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
    limits: FetchLimits = field(default_factory=FetchLimits)

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
        self.verifier = Verifier(settings, self.floors, self.clock, self.limits)

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


def later(fleet: Fleet, device: Device, days: float) -> None:
    """Let time pass for both sides."""
    fleet.now += timedelta(days=days)
    device.clock.unix = fleet.now.timestamp()
    device.clock.monotonic += days * 86_400


# Broker and director


def test_a_forged_document_costs_one_request_a_minute(device: Device, fleet: Fleet) -> None:
    """Garbage is refused, not for good, and can not make the device hammer the repository."""
    release = fleet.publish(make_release())
    forged = fleet.sign_desired(fleet.desired(release), signers=fleet.image_keys["targets"])

    errors = [device.refuse(forged) for _ in range(5)]

    assert {error.code for error in errors} == {ReasonCode.SIGNATURE}
    assert not any(error.final for error in errors)
    assert fleet.requests == ["director/2.root.json"]


def test_a_rotated_director_key_is_learnt_on_the_way(device: Device, fleet: Fleet) -> None:
    """A document of the new key is taken as soon as the new root is there; the old key is dead."""
    release = fleet.publish(make_release())
    by_old_key = fleet.desire(release, 2)
    device.take(fleet.desire(release, 1))
    fleet.rotate_director_key()

    device.take(fleet.desire(release, 3))

    assert device.floors.values["director.root"] == 2
    device.floors.accepted = (1, "")
    assert device.refuse(by_old_key).code is ReasonCode.SIGNATURE
    device.restart()
    assert device.refuse(by_old_key).code is ReasonCode.SIGNATURE


def test_a_revoked_key_is_dead_with_its_first_use(device: Device, fleet: Fleet) -> None:
    """A signature that holds here is checked again with the root of the repository."""
    release = fleet.publish(make_release())
    stolen = fleet.desire(release, 9)
    fleet.rotate_director_key()

    assert device.refuse(stolen).code is ReasonCode.SIGNATURE


@pytest.mark.parametrize("attack", ["forged", "skipped"])
def test_a_bad_root_is_not_followed(device: Device, fleet: Fleet, attack: str) -> None:
    """A root that does not follow changes nothing; documents of the known key still work."""
    release = fleet.publish(make_release())
    good = fleet.desire(release, 1)
    if attack == "forged":
        fleet.rotate_director_key(sign_with_old=False)
    else:
        fleet.rotate_director_key()
        fleet.rotate_director_key()
        fleet.files["director/2.root.json"] = fleet.files.pop("director/3.root.json")
    by_attacker = fleet.desire(release, 2)

    device.take(good)

    error = device.refuse(by_attacker)
    assert error.code is ReasonCode.SIGNATURE
    assert "root" in error.detail
    assert not error.final


def test_a_torn_cache_does_not_bring_a_revoked_key_back(device: Device, fleet: Fleet) -> None:
    """With the cache lost and the new root withheld, nothing is taken at all."""
    release = fleet.publish(make_release())
    by_old_key = fleet.desire(release, 5)
    fleet.rotate_director_key()
    device.take(fleet.desire(release, 1))
    for cached in (device.folder / "tuf" / "director").iterdir():
        cached.write_bytes(b"")
    withheld = fleet.files.pop("director/2.root.json")
    device.restart()

    assert device.refuse(by_old_key).code is ReasonCode.ROOT_CHAIN

    fleet.files["director/2.root.json"] = withheld
    assert device.take(fleet.desire(release, 6)).generation == 6


def test_an_expired_director_root_commands_nothing(device: Device, fleet: Fleet) -> None:
    """A key whose root has run out is no longer believed."""
    release = fleet.publish(make_release())
    later(fleet, device, 366)

    error = device.refuse(fleet.desire(release))

    assert error.code is ReasonCode.EXPIRED
    assert not error.final


# Mix and match


def test_the_director_can_not_invent_a_release(device: Device, fleet: Fleet) -> None:
    """What is not published is not taken; it is tried again, since a mirror may lag behind."""
    fleet.publish(make_release("1.0.0"))

    error = device.refuse(fleet.desire(make_release("2.0.0")))

    assert error.code is ReasonCode.MIX_AND_MATCH
    assert not error.final
    assert (error.generation, error.deployment_id) == (1, "rollout-1")


def test_the_director_can_not_change_a_release(device: Device, fleet: Fleet) -> None:
    """Other bytes under a published name are refused for good."""
    release = fleet.publish(make_release())
    path = release.manifest.artifacts[0].path
    evil = Release(release.manifest, {**release.files, path: b"evil"})

    error = device.refuse(fleet.desire(evil))

    assert error.code is ReasonCode.MIX_AND_MATCH
    assert error.final


def test_the_manifest_has_to_describe_what_is_asked_for(device: Device, fleet: Fleet) -> None:
    """Two published releases can not be mixed: one's manifest with the other's artifact."""
    old, new = fleet.publish(make_release("1.0.0")), fleet.publish(make_release("2.0.0", counter=2))
    mixed = new.slot().model_copy(update={"choices": old.slot().choices})
    renamed = new.slot().model_copy(update={"release": "photos/1.0.0"})

    for slot in (mixed, renamed):
        error = device.refuse(fleet.desire(new, slots={"detector": slot}))
        assert error.code is ReasonCode.MIX_AND_MATCH
        assert error.final


def test_a_golden_set_can_not_be_exchanged(device: Device, fleet: Fleet) -> None:
    """An artifact is proved with its own golden set, not with one that is easier to pass."""
    release = fleet.publish(make_release())
    choice = release.slot().choices[0]
    easier = choice.model_copy(update={"golden": release.ref(release.manifest_path)})
    slot = release.slot().model_copy(update={"choices": (easier,)})

    error = device.refuse(fleet.desire(release, slots={"detector": slot}))

    assert error.code is ReasonCode.MIX_AND_MATCH


def test_a_models_key_speaks_for_its_model_only(device: Device, fleet: Fleet) -> None:
    """A build key that is stolen from one model can not publish another's files."""
    fleet.publish(make_release(model="photos"))
    foreign = fleet.publish(make_release("6.6.6", model="voices"), below="photos")

    assert device.refuse(fleet.desire(foreign)).code is ReasonCode.MIX_AND_MATCH


def test_a_manifest_can_not_move_another_models_floor(device: Device, fleet: Fleet) -> None:
    """A manifest has to lie in the folder of the model it speaks of."""
    liar = make_release("6.6.6", model="photos").manifest.model_copy(
        update={"model": "voices", "min_counter": 1_000, "counter": 2_000}
    )
    release = make_release("6.6.6", model="photos")
    files = {**release.files, "photos/6.6.6/manifest.json": liar.encode()}
    fleet.publish(Release(release.manifest, files))
    slot = Release(release.manifest, files).slot()
    named = slot.model_copy(update={"release": "voices/6.6.6"})

    for each in (slot, named):
        error = device.refuse(fleet.desire(release, slots={"detector": each}))
        assert error.code is ReasonCode.MIX_AND_MATCH


# Releases that are no longer, or not at all, allowed


def test_a_release_below_the_floor_is_refused(device: Device, fleet: Fleet) -> None:
    """Once a release has raised the floor, older ones are not taken, though both roots agree."""
    old = fleet.publish(make_release("1.0.0", counter=1))
    allowed = fleet.publish(make_release("1.1.0", counter=2))
    new = fleet.publish(make_release("2.0.0", counter=3, min_counter=2))
    device.take(fleet.desire(old, 1))
    device.take(fleet.desire(new, 2))

    error = device.refuse(fleet.desire(old, 3))

    assert error.code is ReasonCode.BELOW_FLOOR
    assert error.final
    assert device.take(fleet.desire(allowed, 4)).generation == 4


def test_a_development_release_is_refused_in_production(device: Device, fleet: Fleet) -> None:
    """What throw-away keys have signed runs only where that is allowed."""
    release = fleet.publish(make_release(dev=True))

    assert device.refuse(fleet.desire(release)).code is ReasonCode.DEV_RELEASE

    device.allow_dev = True
    device.restart()
    assert device.take(fleet.desire(release)).manifests["detector"].dev


def test_a_manifest_that_is_none_is_refused(device: Device, fleet: Fleet) -> None:
    """Bytes that both roots sign and that are no manifest are named as that."""
    release = make_release()
    broken = Release(release.manifest, {**release.files, release.manifest_path: b"{}"})
    fleet.publish(broken)

    error = device.refuse(fleet.desire(broken))

    assert error.code is ReasonCode.MALFORMED
    assert error.deployment_id == "rollout-1"


# The mirror: it can only delay


def test_a_mirror_that_is_down_only_delays(device: Device, fleet: Fleet) -> None:
    """Without the repository nothing is taken and nothing is refused for good."""
    release = fleet.publish(make_release())
    payload = fleet.desire(release)
    files, fleet.files = fleet.files, {}

    error = device.refuse(payload)

    assert error.code is ReasonCode.NETWORK
    assert not error.final
    fleet.files = files
    assert device.take(payload).generation == 1


def test_a_rolled_back_repository_is_refused(device: Device, fleet: Fleet) -> None:
    """An older state of the repository is not taken, though everything in it was signed once."""
    old = fleet.publish(make_release("1.0.0"))
    before = dict(fleet.files)
    device.take(fleet.desire(fleet.publish(make_release("2.0.0", counter=2)), 1))
    fleet.files = before

    error = device.refuse(fleet.desire(old, 2))

    assert error.code is ReasonCode.BELOW_FLOOR
    assert not error.final


@pytest.mark.parametrize("torn", ["empty", "garbage", "lost"])
def test_a_torn_cache_does_not_allow_a_rollback(device: Device, fleet: Fleet, torn: str) -> None:
    """The floors hold when a power cut has torn what python-tuf had written."""
    old = fleet.publish(make_release("1.0.0"))
    before = dict(fleet.files)
    device.take(fleet.desire(fleet.publish(make_release("2.0.0", counter=2)), 1))
    cache = device.folder / "tuf" / "image"
    for path in [*cache.glob("*.json"), *cache.glob("root_history/*.json")]:
        if torn == "lost":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(b"" if torn == "empty" else b"\x00[[[")
    now, fleet.files = fleet.files, before
    device.restart()

    assert device.refuse(fleet.desire(old, 2)).code is ReasonCode.BELOW_FLOOR

    fleet.files = now
    assert device.take(fleet.desire(old, 3)).generation == 3


def test_a_frozen_repository_is_noticed(device: Device, fleet: Fleet) -> None:
    """A mirror can not show the same state for ever: its timestamp runs out."""
    release = fleet.publish(make_release())
    later(fleet, device, 31)

    error = device.refuse(fleet.desire(release))

    assert error.code is ReasonCode.EXPIRED
    assert not error.final


@pytest.mark.parametrize(
    ("withheld", "code"),
    [
        ("metadata/timestamp.json", ReasonCode.NETWORK),
        ("metadata/3.snapshot.json", ReasonCode.NETWORK),
        ("metadata/3.targets.json", ReasonCode.NETWORK),
        ("metadata/2.photos.json", ReasonCode.NETWORK),
    ],
)
def test_withheld_metadata_only_delays(
    device: Device, fleet: Fleet, withheld: str, code: ReasonCode
) -> None:
    """Whichever part the mirror keeps back, the device waits for it."""
    release = fleet.publish(make_release())
    kept = fleet.files.pop(withheld)

    error = device.refuse(fleet.desire(release))

    assert (error.code, error.final) == (code, False)
    fleet.files[withheld] = kept
    assert device.take(fleet.desire(release)).generation == 1


def test_metadata_of_two_states_does_not_fit_together(device: Device, fleet: Fleet) -> None:
    """A mirror can not combine an old snapshot with a new timestamp."""
    fleet.publish(make_release("1.0.0"))
    old_snapshot = fleet.files[f"metadata/{fleet.snapshot.version}.snapshot.json"]
    release = fleet.publish(make_release("2.0.0", counter=2))
    fleet.files[f"metadata/{fleet.snapshot.version}.snapshot.json"] = old_snapshot

    error = device.refuse(fleet.desire(release))

    assert not error.final
    assert error.code in {ReasonCode.DIGEST_MISMATCH, ReasonCode.NETWORK}


def test_forged_metadata_of_the_repository_is_refused(device: Device, fleet: Fleet) -> None:
    """A timestamp or a root that somebody else signed is not believed."""
    release = fleet.publish(make_release())
    payload = fleet.desire(release)
    stranger = new_keys()
    good = fleet.files["metadata/timestamp.json"]
    fleet.files["metadata/timestamp.json"] = sign(fleet.timestamp, *stranger["timestamp"])

    assert device.refuse(payload).code is ReasonCode.SIGNATURE

    fleet.files["metadata/timestamp.json"] = good
    fleet.files["metadata/2.root.json"] = sign(make_root(stranger, 2), *stranger["root"])
    assert device.refuse(payload).code is ReasonCode.ROOT_CHAIN


def test_other_bytes_of_a_manifest_are_not_read(device: Device, fleet: Fleet) -> None:
    """What the mirror sends instead of the manifest is not even parsed."""
    release = fleet.publish(make_release())
    for path in fleet.files:
        if path.endswith("manifest.json"):
            fleet.files[path] = b"x" * len(fleet.files[path])

    error = device.refuse(fleet.desire(release))

    assert (error.code, error.final) == (ReasonCode.DIGEST_MISMATCH, False)


def test_a_fast_forward_is_recovered_from_by_a_new_root(device: Device, fleet: Fleet) -> None:
    """A thief of online keys who signs a huge version does not lock the fleet out for ever."""
    device.take(fleet.desire(fleet.publish(make_release("1.0.0")), 1))
    sane = fleet.timestamp.version, fleet.snapshot.version
    fleet.timestamp.version = fleet.snapshot.version = 1_000_000
    fleet.show()
    release = fleet.publish(make_release("1.1.0", counter=2))
    device.take(fleet.desire(release, 2))
    fleet.timestamp.version, fleet.snapshot.version = sane
    fleet.show()
    assert device.refuse(fleet.desire(release, 3)).code is ReasonCode.BELOW_FLOOR

    fleet.rotate_image_keys("timestamp", "snapshot")
    fleet.show()

    assert device.take(fleet.desire(release, 4)).generation == 4


# Web servers that misbehave


def redirecting(handler: BaseHTTPRequestHandler) -> None:
    """Send the client elsewhere."""
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:9/metadata/timestamp.json")
    handler.end_headers()


def compressing(handler: BaseHTTPRequestHandler) -> None:
    """Send a small answer that would become a large one."""
    data = gzip.compress(b"\0" * 50_000_000)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Never stop sending."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b" " * 65_536)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, so that no read ever times out."""
    handler.send_response(200)
    handler.end_headers()
    stop = Event()
    with suppress(OSError):
        while not stop.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()


def trickling_headers(handler: BaseHTTPRequestHandler) -> None:
    """Do the same in the headers."""
    stop = Event()
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        while not stop.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()


def lying(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b"{}")


def hanging_up(handler: BaseHTTPRequestHandler) -> None:
    """Send nothing."""
    handler.close_connection = True


def babbling(handler: BaseHTTPRequestHandler) -> None:
    """Speak no HTTP."""
    handler.wfile.write(b"\xff\x00" * 40_000)


def nested(handler: BaseHTTPRequestHandler) -> None:
    """Send JSON that is deeper than a stack."""
    data = b'{"a":' * 2_700
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


@pytest.mark.parametrize(
    ("server", "code"),
    [
        (redirecting, ReasonCode.NETWORK),
        (compressing, ReasonCode.NETWORK),
        (endless, ReasonCode.NETWORK),
        (trickling, ReasonCode.NETWORK),
        (trickling_headers, ReasonCode.NETWORK),
        (lying, ReasonCode.NETWORK),
        (hanging_up, ReasonCode.NETWORK),
        (babbling, ReasonCode.NETWORK),
        (nested, ReasonCode.MALFORMED),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("path", ["metadata/timestamp.json", "manifest.json"])
def test_a_misbehaving_web_server_only_delays(
    device: Device, fleet: Fleet, server: Answer, code: ReasonCode, path: str
) -> None:
    """Endless, slow, redirecting, compressing and lying answers end, in time, in a retry."""
    release = fleet.publish(make_release())
    payload = fleet.desire(release)
    attacked = next(each for each in fleet.files if each.endswith(path))
    fleet.answers[attacked] = server
    device.limits = FetchLimits(connect_s=1.0, read_s=0.5, total_s=0.7)
    device.restart()

    error = device.refuse(payload)

    # A manifest that is too long or too short is noticed before it would be parsed.
    early = {ReasonCode.DIGEST_MISMATCH, ReasonCode.NETWORK} if path == "manifest.json" else set()
    assert error.code in {code, *early}
    assert not error.final
    fleet.answers.clear()
    assert device.take(payload).generation == 1


def test_a_missing_director_root_folder_is_no_hindrance(device: Device, fleet: Fleet) -> None:
    """Documents of the known key are taken while the director's roots can not be reached."""
    release = fleet.publish(make_release())
    fleet.answers["director/2.root.json"] = redirecting

    assert device.take(fleet.desire(release)).generation == 1


# Clocks


def test_a_clock_at_1970_is_held_up_by_what_was_signed(device: Device, fleet: Fleet) -> None:
    """Without a battery a device must not take what expired long ago."""
    release = fleet.publish(make_release())
    stale = fleet.sign_desired(fleet.desired(release), 9, lifetime=timedelta(days=1))
    later(fleet, device, 20)
    fleet.timestamp.expires = fleet.now + timedelta(days=30)
    fleet.show()
    device.take(fleet.desire(release, 1))

    device.clock.unix = 0.0
    device.restart()

    assert device.refuse(stale).code is ReasonCode.EXPIRED
    assert device.take(fleet.desire(release, 2)).generation == 2


def test_a_clock_at_2040_refuses_and_recovers(device: Device, fleet: Fleet) -> None:
    """A clock that runs ahead blocks updates, and leaves no trace once it is right again."""
    release = fleet.publish(make_release())
    device.clock.unix = datetime(2040, 1, 1, tzinfo=UTC).timestamp()
    wanted = fleet.desire(release)

    refused = device.refuse(wanted)

    assert (refused.code, refused.final) == (ReasonCode.EXPIRED, False)
    device.clock.unix = NOW.timestamp()
    assert device.take(wanted).generation == 1


def test_a_stolen_director_key_can_not_move_the_clock_to_2040(device: Device, fleet: Fleet) -> None:
    """The floor of the clock never passes what the image repository vouches for."""
    release = fleet.publish(make_release())
    far = fleet.sign_desired(
        fleet.desired(release, issued="2040-01-01T00:00:00Z"), lifetime=timedelta(days=9_000)
    )

    device.take(far)

    assert device.floors.values["clock"] == int(fleet.timestamp.expires.timestamp())


def test_a_time_that_is_none_moves_nothing(device: Device, fleet: Fleet) -> None:
    """The time of issue is text for people; without meaning it is not used."""
    release = fleet.publish(make_release())

    device.take(fleet.desire(release, issued="yesterday"))

    assert device.floors.values["clock"] == 0


def test_a_device_without_its_roots_says_so(device: Device, fleet: Fleet) -> None:
    """A device that was not provisioned takes nothing, and names the file that is missing."""
    payload = fleet.desire(fleet.publish(make_release()))
    device.anchors[1].unlink()
    device.restart()

    error = device.refuse(payload)

    assert error.code is ReasonCode.ROOT_CHAIN
    assert "director-root.json" in error.detail


def test_verifying_does_not_stop_the_event_loop(device: Device, fleet: Fleet) -> None:
    """The blocking work is done in a thread."""
    payload = fleet.desire(fleet.publish(make_release()))

    assert asyncio.run(device.verifier.verify(payload)).generation == 1


def test_a_verification_that_is_cancelled_lets_go_of_a_slow_mirror(
    device: Device, fleet: Fleet
) -> None:
    """The agent can end while a mirror trickles: no thread is left behind waiting for it."""
    payload = fleet.desire(fleet.publish(make_release()))
    fleet.answers["metadata/timestamp.json"] = trickling

    async def story() -> None:
        task = asyncio.create_task(device.verifier.verify(payload))
        await eventually(lambda: "metadata/timestamp.json" in fleet.requests, "it fetches")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())  # waits for the thread

    fleet.answers.clear()
    assert device.take(payload).generation == 1


def test_all_answers_of_one_verification_share_a_budget(device: Device, fleet: Fleet) -> None:
    """A mirror can not make a verification last by being slow in each of many files."""
    payload = fleet.desire(fleet.publish(make_release()))
    fleet.answers["metadata/timestamp.json"] = trickling
    device.limits = FetchLimits(total_s=60.0, budget_s=0.4)
    device.restart()

    error = device.refuse(payload)

    assert (error.code, error.final) == (ReasonCode.NETWORK, False)
