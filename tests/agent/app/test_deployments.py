"""Deployments from a desired state to their final status, with everything real but the server."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from stoker_agent.errors import ControlError, TrustError
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.control import Op
from stoker_contract.desired import Gates, Policy, Probation
from stoker_contract.status import Phase
from support.edge_device import SLOT, EdgeDevice, golden_set, publish, tiny_model, want
from support.fake_server_control import FakeServerControl
from support.http_server import Repository, serving
from support.waiting import eventually

Story = Callable[[EdgeDevice, FakeServerControl], Coroutine[None, None, None]]

FORWARD = [
    Phase.ACCEPTED,
    Phase.DOWNLOADING,
    Phase.VERIFYING,
    Phase.STAGED,
    Phase.PREFLIGHT,
    Phase.LOADING,
    Phase.WARMING,
    Phase.GOLDEN,
    Phase.SWAPPING,
    Phase.PROBATION,
    Phase.COMMITTING,
]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    root.mkdir()
    with serving(root) as repository:
        yield repository


@pytest.fixture
def tell(tmp_path: Path, repository: Repository) -> Callable[[Story], None]:
    """Run a story on a fresh device."""

    def run(story: Story) -> None:
        async def whole() -> None:
            state_dir = tmp_path / "state"
            server = FakeServerControl(state_dir / "slots")
            async with EdgeDevice(state_dir, repository, server).running() as device:
                await story(device, server)

        asyncio.run(whole())

    return run


def test_a_release_is_installed_on_an_empty_device(tell: Callable[[Story], None]) -> None:
    """Every phase is reported, the last one final, and the new engine serves after a boot."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "1.0.0")
        await device.receive(want(release, generation=1))
        final = await device.ended("d-1")

        assert final.outcome is Outcome.SUCCEEDED
        assert final.measured.golden_score == 1.0
        assert final.measured.confidence == "high"
        # a slow machine also hears how far the download is
        steps = [event.phase for event in device.events("d-1") if event.progress is None]
        assert steps == [*FORWARD, Phase.COMMITTING]
        assert server.serves(SLOT) == "tiny/1.0.0"
        server.restart()
        assert server.serves(SLOT) == "tiny/1.0.0"

    tell(story)


def test_the_next_release_keeps_the_one_before_on_the_disk(tell: Callable[[Story], None]) -> None:
    """After an update the slot file names both, and older blobs are gone."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        releases = [publish(device.repository.root, f"{n}.0.0") for n in (1, 2, 3)]
        for generation, release in enumerate(releases, start=1):
            await device.install(want(release, generation=generation))
        file = device.slots.read(SLOT)

        assert file is not None
        assert file.current.release == "tiny/3.0.0"
        assert file.previous is not None
        assert file.previous.release == "tiny/2.0.0"
        kept = {releases[1].digest, releases[2].digest}
        await eventually(lambda: _blobs(device) == kept, "garbage collection")
        assert server.slots[SLOT].previous is None

    tell(story)


def test_the_fallback_of_an_engine_is_on_the_disk_before_it_is_needed(
    tell: Callable[[Story], None],
) -> None:
    """After an upgrade of the device's runtime there may be no network to fetch it with."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        spare = tiny_model(9)
        release = publish(device.repository.root, "1.0.0", fallback=spare)
        await device.install(want(release, generation=1))
        file = device.slots.read(SLOT)

        assert file is not None
        assert file.fallback is not None
        assert file.fallback.digest == hashlib.sha256(spare).hexdigest()
        assert file.fallback.digest in _blobs(device)
        assert server.serves(SLOT) == "tiny/1.0.0"

        await device.install(want(publish(device.repository.root, "2.0.0"), generation=2))
        after = device.slots.read(SLOT)
        assert after is not None
        assert after.fallback is None

    tell(story)


def test_a_fallback_is_looked_through_like_any_model(tell: Callable[[Story], None]) -> None:
    """It is refused before the swap, not when it is needed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        del server
        release = publish(device.repository.root, "1.0.0", fallback=b"no model")
        await device.receive(want(release, generation=1))
        final = await device.ended("d-1")

        assert (final.outcome, final.code) == (Outcome.FAILED_NO_CHANGE, ReasonCode.UNSAFE_MODEL)

    tell(story)


def _blobs(device: EdgeDevice) -> set[str]:
    return {path.name for path in device.store.blobs.iterdir()}


def test_a_long_download_says_how_far_it_is(tell: Callable[[Story], None]) -> None:
    """Whoever watches a rollout sees bytes arrive, in steps that rise."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        golden = golden_set(1.0, samples=20_000)
        release = publish(device.repository.root, "1.0.0", golden=golden)
        policy = Policy(deadline_s=60.0, max_bytes_per_s=len(golden))
        await device.receive(want(release, generation=1, policy=policy))
        await device.ended("d-1")
        steps = [event.progress for event in device.events("d-1") if event.progress is not None]

        assert steps
        assert steps == sorted(steps)
        assert all(0 < step <= 1 for step in steps)

    tell(story)


def test_the_same_document_again_changes_nothing(tell: Callable[[Story], None]) -> None:
    """A redelivery reports the state again and starts no deployment."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        wanted = want(publish(device.repository.root, "1.0.0"), generation=1)
        await device.install(wanted)
        calls, changes = len(server.calls), device.changes
        await device.receive(wanted)

        assert device.changes == changes + 1
        assert len(server.calls) == calls
        assert len(device.finals("d-1")) == 1

    tell(story)


def test_a_new_generation_for_what_already_serves_is_a_noop(
    tell: Callable[[Story], None],
) -> None:
    """NOOP is an outcome of its own, and nothing is downloaded for it."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "1.0.0")
        await device.install(want(release, generation=1))
        requests = len(device.repository.requests)
        await device.receive(want(release, generation=2))

        assert (await device.ended("d-2")).outcome is Outcome.NOOP
        assert len(device.repository.requests) == requests
        assert server.started == [release.digest]

    tell(story)


def test_wrong_answers_are_refused_before_they_serve(tell: Callable[[Story], None]) -> None:
    """A golden set that does not agree leaves the old engine, and the digest is remembered."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        good, bad = (publish(device.repository.root, f"{n}.0.0") for n in (1, 2))
        await device.install(want(good, generation=1))
        server.score = 0.5
        await device.receive(want(bad, generation=2))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.FAILED_NO_CHANGE, ReasonCode.GOLDEN_FAIL)
        assert final.stack == ("golden", "AgentError", SLOT, "GOLDEN_FAIL")
        assert server.serves(SLOT) == "tiny/1.0.0"
        await eventually(lambda: server.slots[SLOT].candidate is None, "the candidate is closed")
        await device.receive(want(bad, generation=3))
        assert (await device.ended("d-3")).code is ReasonCode.BAD_DIGEST
        server.score = 1.0
        await device.install(want(bad, generation=4, policy=Policy(force=True)))
        assert server.serves(SLOT) == "tiny/2.0.0"
        assert device.journal.bad_digests() == {}

    tell(story)


def test_a_candidate_slower_than_the_active_engine_is_refused(
    tell: Callable[[Story], None],
) -> None:
    """The latency gate compares on the device, and says by how much it failed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        gates = Gates(min_samples=10, max_p99_ratio_vs_active=1.5)
        good, slow = (publish(device.repository.root, f"{n}.0.0") for n in (1, 2))
        await device.install(want(good, generation=1, gates=gates))
        server.p99_ms = 3.5
        await device.receive(want(slow, generation=2, gates=gates))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.FAILED_NO_CHANGE, ReasonCode.GATE_LATENCY)
        assert "3.500 ms" in final.detail
        assert "3.000 ms" in final.detail

    tell(story)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ({"errors": 3}, ReasonCode.PROBATION_ERRORS),
        ({"restarts": 1}, ReasonCode.ENGINE_CRASH_LOOP),
        ({"p99_ms": 30.0}, ReasonCode.PROBATION_LATENCY),
    ],
)
def test_an_engine_that_fails_on_live_traffic_is_rolled_back(
    tell: Callable[[Story], None], trouble: dict[str, float], code: ReasonCode
) -> None:
    """The old engine serves again, the digest is bad, and the reason is told."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        good, bad = (publish(device.repository.root, f"{n}.0.0") for n in (1, 2))
        await device.install(want(good, generation=1))
        for name, value in trouble.items():
            setattr(server, name, value)
        probation = Probation(duration_s=0.05, min_samples=10, p99_ms=20.0)
        await device.receive(want(bad, generation=2, probation=probation))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.ROLLED_BACK, code)
        assert server.serves(SLOT) == "tiny/1.0.0"
        assert device.committed() == {SLOT: "tiny/1.0.0"}
        assert device.journal.bad_digests() == {bad.digest: code}

    tell(story)


def test_little_traffic_commits_with_low_confidence(tell: Callable[[Story], None]) -> None:
    """A quiet night is no evidence against an engine."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        server.requests = 3
        await device.receive(want(publish(device.repository.root, "1.0.0"), generation=1))
        final = await device.ended("d-1")

        assert final.outcome is Outcome.SUCCEEDED
        assert final.measured.confidence == "low"

    tell(story)


def test_a_newer_generation_supersedes_before_the_swap(tell: Callable[[Story], None]) -> None:
    """The older one ends as SUPERSEDED, its candidate is closed, and the newer one is installed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        first, second = (publish(device.repository.root, f"{n}.0.0") for n in (1, 2))
        warming = server.hold(Op.WARM)
        await device.receive(want(first, generation=1))
        await asyncio.wait_for(warming.wait(), 45)
        await device.receive(want(second, generation=2))

        assert (await device.ended("d-1")).outcome is Outcome.SUPERSEDED
        server.let_go(Op.WARM)
        assert (await device.ended("d-2")).outcome is Outcome.SUCCEEDED
        assert server.serves(SLOT) == "tiny/2.0.0"

    tell(story)


def test_a_newer_generation_waits_for_the_verdict_after_the_swap(
    tell: Callable[[Story], None],
) -> None:
    """Of two that wait, only the newest is installed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        releases = [publish(device.repository.root, f"{n}.0.0") for n in (1, 2, 3)]
        observing = server.hold(Op.OBSERVE)
        await device.receive(want(releases[0], generation=1))
        await asyncio.wait_for(observing.wait(), 45)
        await device.receive(want(releases[1], generation=2))
        await device.receive(want(releases[2], generation=3))
        server.let_go(Op.OBSERVE)

        assert (await device.ended("d-1")).outcome is Outcome.SUCCEEDED
        assert (await device.ended("d-2")).outcome is Outcome.SUPERSEDED
        assert (await device.ended("d-3")).outcome is Outcome.SUCCEEDED
        assert releases[1].digest not in server.started

    tell(story)


@pytest.mark.parametrize("op", [Op.LOAD, Op.WARM, Op.GOLDEN])
def test_a_failing_candidate_changes_nothing(tell: Callable[[Story], None], op: Op) -> None:
    """Whatever the candidate does before the swap, the old engine serves."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        good, bad = (publish(device.repository.root, f"{n}.0.0") for n in (1, 2))
        await device.install(want(good, generation=1))
        server.failures[op] = ControlError(ReasonCode.ENGINE_CRASHED, "segmentation fault")
        await device.receive(want(bad, generation=2))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.FAILED_NO_CHANGE, ReasonCode.ENGINE_CRASHED)
        assert server.serves(SLOT) == "tiny/1.0.0"

    tell(story)


def test_a_refused_document_is_answered_once(tell: Callable[[Story], None]) -> None:
    """The same forged or stale bytes again get no second status."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        wanted = want(publish(device.repository.root, "1.0.0"), generation=1)
        device.verifier.refusal = TrustError(
            ReasonCode.DEV_RELEASE, "made with --dev", generation=1, deployment_id="d-1"
        )
        await device.receive(wanted)
        await device.receive(wanted)

        finals = device.finals("d-1")
        assert [(e.outcome, e.code) for e in finals] == [(Outcome.REJECTED, ReasonCode.DEV_RELEASE)]
        assert device.journal.generation() == (0, "")
        assert server.calls == []

    tell(story)


def test_a_hold_on_the_device_wins_over_the_cloud(tell: Callable[[Story], None]) -> None:
    """Held, a device begins nothing; released, it takes what it was asked for meanwhile."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "1.0.0")
        policy = Policy(deadline_s=1.0)
        device.journal.set_held(held=True)
        await device.receive(want(release, generation=1, policy=policy))
        await eventually(lambda: _phase(device) is Phase.DOWNLOADING, "it is accepted")
        asleep = device.clock.monotonic_s() + 2 * policy.deadline_s
        await eventually(lambda: device.clock.monotonic_s() > asleep, "no deadline counts that")
        assert device.repository.requests == []
        assert device.reporter.reported().held
        device.journal.set_held(held=False)
        device.deployer.kick()

        assert (await device.ended("d-1")).outcome is Outcome.SUCCEEDED
        assert server.serves(SLOT) == "tiny/1.0.0"

    tell(story)


def test_what_is_held_is_superseded_all_the_same(tell: Callable[[Story], None]) -> None:
    """Of several that came while updates were held, only the newest is installed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        releases = [publish(device.repository.root, f"{n}.0.0") for n in (1, 2)]
        device.journal.set_held(held=True)
        for generation, release in enumerate(releases, start=1):
            await device.receive(want(release, generation=generation))
        assert (await device.ended("d-1")).outcome is Outcome.SUPERSEDED
        device.journal.set_held(held=False)
        device.deployer.kick()

        assert (await device.ended("d-2")).outcome is Outcome.SUCCEEDED
        assert server.started == [releases[1].digest]

    tell(story)


def test_a_person_can_roll_back_without_the_cloud(tell: Callable[[Story], None]) -> None:
    """The previous engine comes back from the disk, also after the old process is gone."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        for generation in (1, 2):
            release = publish(device.repository.root, f"{generation}.0.0")
            await device.install(want(release, generation=generation))
        device.deployer.want_rollback()

        await eventually(lambda: device.committed() == {SLOT: "tiny/1.0.0"}, "the slot file")
        assert server.serves(SLOT) == "tiny/1.0.0"

    tell(story)


def test_two_slots_change_together_or_not_at_all(tell: Callable[[Story], None]) -> None:
    """When one slot of a document fails its probation, all of them go back."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        slots = ("detector", "reader")
        old = [publish(device.repository.root, f"{n}.0.0") for n in (1, 2)]
        new = [publish(device.repository.root, f"{n}.0.0") for n in (3, 4)]
        await device.install(want(*old, generation=1, slots=slots))
        server.errors = 5
        await device.receive(want(*new, generation=2, slots=slots))

        assert (await device.ended("d-2")).outcome is Outcome.ROLLED_BACK
        assert device.committed() == {"detector": "tiny/1.0.0", "reader": "tiny/2.0.0"}
        assert {server.serves(slot) for slot in slots} == {"tiny/1.0.0", "tiny/2.0.0"}

    tell(story)


def _phase(device: EdgeDevice) -> Phase:
    unfinished = device.journal.unfinished()
    return unfinished[0].progress.phase if unfinished else Phase.IDLE
