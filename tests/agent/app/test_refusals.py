"""What a device does not take, and what it says about it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from stoker_agent.core.report import status_event
from stoker_agent.errors import TrustError
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.control import Op
from stoker_contract.desired import Policy
from stoker_contract.reported import Reported
from stoker_contract.status import Phase
from stoker_contract.target import Arch
from support.edge_device import PROFILE, SLOT, EdgeDevice, payload_of, publish, want
from support.fake_server_control import FakeServerControl
from support.http_server import Repository, serving
from support.waiting import eventually

Story = Callable[[EdgeDevice, FakeServerControl], Coroutine[None, None, None]]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    root.mkdir()
    with serving(root) as repository:
        yield repository


@pytest.fixture
def tell(tmp_path: Path, repository: Repository) -> Callable[[Story], None]:
    """Run a story on a device that serves release 1.0.0."""

    def run(story: Story) -> None:
        async def whole() -> None:
            state_dir = tmp_path / "state"
            server = FakeServerControl(state_dir / "slots")
            async with EdgeDevice(state_dir, repository, server).running() as device:
                await device.install(want(publish(repository.root, "1.0.0"), generation=1))
                await story(device, server)
                assert server.serves(SLOT) == "tiny/1.0.0"
                assert device.committed() == {SLOT: "tiny/1.0.0"}

        asyncio.run(whole())

    return run


def test_an_unsafe_model_never_reaches_the_server(tell: Callable[[Story], None]) -> None:
    """The static scan refuses bytes that are signed and still not a model."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        unsafe = publish(device.repository.root, "2.0.0", artifact=b"\xff" * 1000)
        await device.receive(want(unsafe, generation=2))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.FAILED_NO_CHANGE, ReasonCode.UNSAFE_MODEL)
        assert unsafe.digest not in server.started
        assert device.journal.bad_digests() == {unsafe.digest: ReasonCode.UNSAFE_MODEL}

    tell(story)


def test_other_bytes_than_signed_are_refused(tell: Callable[[Story], None]) -> None:
    """A mirror that serves something else can only delay."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "2.0.0")
        device.repository.bad.replace_with = b"x" * release.choice.artifact.length
        await device.receive(want(release, generation=2))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (
            Outcome.FAILED_NO_CHANGE,
            ReasonCode.DIGEST_MISMATCH,
        )
        assert device.journal.bad_digests() == {}
        device.repository.bad.replace_with = None

    tell(story)


def test_a_repository_that_is_away_is_a_transient_failure(tell: Callable[[Story], None]) -> None:
    """NETWORK says that the release is not to blame."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "2.0.0")
        device.repository.bad.status = 503
        await device.receive(want(release, generation=2))

        assert (await device.ended("d-2")).code is ReasonCode.NETWORK

    tell(story)


def test_a_full_disk_refuses_before_the_first_byte(tell: Callable[[Story], None]) -> None:
    """The whole transaction has to fit."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "2.0.0")
        requests = len(device.repository.requests)
        device.host.disk_free_bytes = 100
        await device.receive(want(release, generation=2))

        assert (await device.ended("d-2")).code is ReasonCode.DISK_SPACE
        assert len(device.repository.requests) == requests

    tell(story)


def test_a_deployment_has_a_deadline(tell: Callable[[Story], None]) -> None:
    """What the policy allows is all the time there is; the outcome is TIMED_OUT."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        release = publish(device.repository.root, "2.0.0")
        policy = Policy(deadline_s=0.3, max_bytes_per_s=1)
        await device.receive(want(release, generation=2, policy=policy))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.TIMED_OUT, ReasonCode.PHASE_DEADLINE)

    tell(story)


def test_another_machine_is_incompatible(tell: Callable[[Story], None]) -> None:
    """The detail names what is missing."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        device.host.profile = PROFILE.model_copy(update={"arch": Arch.AARCH64})
        await device.receive(want(publish(device.repository.root, "2.0.0"), generation=2))
        final = await device.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.REJECTED, ReasonCode.INCOMPATIBLE_TARGET)
        assert "x86_64" in final.detail

    tell(story)


def test_a_document_that_can_not_be_verified_now_is_tried_again(
    tell: Callable[[Story], None],
) -> None:
    """No status is sent for it, and it is taken as soon as the repository answers."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        device.verifier.refusal = TrustError(ReasonCode.NETWORK, "no metadata", final=False)
        again = want(publish(device.repository.root, "1.0.0"), generation=2)
        retrying = asyncio.create_task(device.deployer.retry_verification())
        try:
            await device.receive(again)
            assert device.events("d-2") == []
            device.verifier.refusal = None
            assert (await device.ended("d-2")).outcome is Outcome.NOOP
        finally:
            retrying.cancel()
            await asyncio.wait([retrying])

    tell(story)


@pytest.mark.parametrize(
    ("code", "events"),
    [(ReasonCode.STALE_GENERATION, 0), (ReasonCode.EQUIVOCATION, 1)],
)
def test_a_replay_does_not_end_a_deployment_again(
    tell: Callable[[Story], None], code: ReasonCode, events: int
) -> None:
    """An old document changes nothing; two documents of one generation raise an alarm."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        before = len(device.events("d-1"))
        device.verifier.refusal = TrustError(code, "seen", generation=1, deployment_id="d-1")
        await device.deployer.on_desired(b"replayed")
        said = device.events("d-1")[before:]

        assert len(device.finals("d-1")) == 1
        assert [(event.final, event.code) for event in said] == [(False, code)] * events

    tell(story)


def test_forged_bytes_get_no_answer(tell: Callable[[Story], None]) -> None:
    """Nothing in a document that nobody signed is believed, not even its id."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        forged = want(publish(device.repository.root, "2.0.0"), generation=2)
        depth = device.journal.depth()
        await device.deployer.on_desired(payload_of(2, forged.desired))

        assert device.journal.depth() == depth
        assert device.journal.generation()[0] == 1

    tell(story)


@pytest.mark.parametrize("op", [Op.LOAD, Op.GOLDEN])
def test_a_hold_stops_an_update_before_the_swap(tell: Callable[[Story], None], op: Op) -> None:
    """The candidate is closed and nothing is ended; released, it is proved from the beginning."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        asked = server.hold(op)
        await device.receive(want(publish(device.repository.root, "2.0.0"), generation=2))
        await asyncio.wait_for(asked.wait(), 45)
        device.journal.set_held(held=True)
        device.deployer.kick()
        await eventually(lambda: _phase(device) is Phase.STAGED, "it waits")
        await eventually(lambda: server.slots[SLOT].candidate is None, "the candidate is closed")
        server.let_go(op)
        assert device.finals("d-2") == []
        server.score = 0.0  # so that the old engine is what serves in the end
        device.journal.set_held(held=False)
        device.deployer.kick()
        final = await device.ended("d-2")

        assert (final.code, final.attempt) == (ReasonCode.GOLDEN_FAIL, 1)

    tell(story)


def test_garbage_does_not_push_out_a_document_that_waits(tell: Callable[[Story], None]) -> None:
    """Whatever is sent meanwhile, what the director has signed is taken once it can be."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        wanted = want(publish(device.repository.root, "1.0.0"), generation=2)
        payload = payload_of(2, wanted.desired)
        device.verifier.refusal = TrustError(
            ReasonCode.NETWORK, "no metadata", False, generation=2, deployment_id="d-2"
        )
        await device.deployer.on_desired(payload)
        device.verifier.refusal = None
        for number in range(50):
            await device.deployer.on_desired(f"garbage {number}".encode())
        refusals = device.reporter.reported().refusals
        device.verifier.known[wanted.payload_sha256] = wanted
        retrying = asyncio.create_task(device.deployer.retry_verification())
        try:
            assert (await device.ended("d-2")).outcome is Outcome.NOOP
        finally:
            retrying.cancel()
            await asyncio.wait([retrying])

        assert len(refusals) == 8
        assert (refusals[0].code, refusals[0].generation) == (ReasonCode.NETWORK, 2)
        assert {(r.code, r.generation) for r in refusals[1:]} == {(ReasonCode.SIGNATURE, None)}
        assert 2 not in {r.generation for r in device.reporter.reported().refusals}

    tell(story)


def test_what_is_not_taken_now_is_reported_until_it_is(tell: Callable[[Story], None]) -> None:
    """Who looks at the fleet sees why a device waits, since when, and then no more of it."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        wanted = want(publish(device.repository.root, "1.0.0"), generation=2)
        device.verifier.refusal = TrustError(
            ReasonCode.EXPIRED, "it is 2040 here", False, generation=2, deployment_id="d-2"
        )
        await device.receive(wanted)
        changes = device.changes
        (first,) = Reported.parse(device.reporter.reported().encode()).refusals
        await device.receive(wanted)
        (again,) = device.reporter.reported().refusals
        assert (first, device.changes) == (again, changes)
        device.verifier.refusal = None
        await device.receive(wanted)

        assert (first.code, first.deployment_id) == (ReasonCode.EXPIRED, "d-2")
        assert device.reporter.reported().refusals == ()
        assert (await device.ended("d-2")).outcome is Outcome.NOOP

    tell(story)


def test_a_rollback_on_the_device_ends_probation(tell: Callable[[Story], None]) -> None:
    """A person who sees that it is wrong need not wait; the digest is not blamed."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        asked = server.hold(Op.OBSERVE)
        await device.receive(want(publish(device.repository.root, "2.0.0"), generation=2))
        await asyncio.wait_for(asked.wait(), 45)
        device.deployer.want_rollback()
        final = await device.ended("d-2")
        server.let_go(Op.OBSERVE)

        assert (final.outcome, final.code) == (Outcome.ROLLED_BACK, ReasonCode.HELD)
        assert device.journal.bad_digests() == {}

    tell(story)


def test_a_paused_fleet_stages_and_waits(tell: Callable[[Story], None]) -> None:
    """``pause_updates`` stops at STAGED, and a later notice lets it go on."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        device.deployer.pause(paused=True)
        await device.receive(want(publish(device.repository.root, "2.0.0"), generation=2))
        await eventually(lambda: _phase(device) is Phase.STAGED, "staged")
        server.score = 0.0
        device.deployer.pause(paused=False)

        assert (await device.ended("d-2")).code is ReasonCode.GOLDEN_FAIL

    tell(story)


def test_the_reported_state_names_what_the_worker_says(tell: Callable[[Story], None]) -> None:
    """Without an answer from the server nothing is claimed to be active."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        device.reporter.server = await server.status()
        online = Reported.parse(device.reporter.reported().encode())
        device.reporter.server = None
        offline = device.reporter.reported()

        assert online.slots[SLOT].release == "tiny/1.0.0"
        assert online.slots[SLOT].ready
        assert online.observed_generation == 1
        assert online.last is not None
        assert (online.last.generation, online.last.outcome) == (1, Outcome.SUCCEEDED)
        assert offline.slots[SLOT].active is None
        assert offline.slots[SLOT].reason is ReasonCode.SERVER_UNAVAILABLE
        assert (online.epoch, online.seq) < (offline.epoch, offline.seq)

    tell(story)


def test_every_status_event_is_a_valid_document(tell: Callable[[Story], None]) -> None:
    """What the core builds from the journal alone passes the contract."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        record = device.journal.history(1)[0]
        event = status_event(record, device.reporter.stamp(), phase=Phase.COMMITTING)

        assert event.parse(event.encode()) == event

    tell(story)


def _phase(device: EdgeDevice) -> Phase:
    unfinished = device.journal.unfinished()
    return unfinished[0].progress.phase if unfinished else Phase.IDLE
