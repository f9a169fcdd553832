"""A power cut before and after every effect of a deployment, with and without the server."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from stoker_agent.app.effects import Effects
from stoker_agent.app.run import Run
from stoker_agent.core.deployment import Effect, Event
from stoker_agent.errors import ControlError
from stoker_agent.state.slots import SlotFiles
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.control import Op
from stoker_contract.desired import Policy, Retry
from stoker_contract.status import Phase
from support.edge_device import QUICK, SLOT, EdgeDevice, publish, want
from support.fake_server_control import FakeServerControl
from support.http_server import Repository, serving
from support.waiting import eventually

FORWARD = [
    Effect.EVALUATE,
    Effect.DOWNLOAD,
    Effect.VERIFY,
    Effect.AWAIT_ACTIVATION,
    Effect.PREFLIGHT,
    Effect.LOAD,
    Effect.WARM,
    Effect.PROVE,
    Effect.SWAP,
    Effect.OBSERVE,
    Effect.COMMIT,
    Effect.RETIRE,
]


@dataclass
class CutEffects:
    """Real effects, up to the one at which the power goes."""

    inner: Effects
    at: Effect
    after: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def perform(self, effect: Effect, run: Run) -> Event | None:
        """Run an effect, or never return from it."""
        if effect is self.at and not self.after:
            await self._power_off()
        event = await self.inner.perform(effect, run)
        if effect is self.at:
            await self._power_off()
        return event

    async def _power_off(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the real thing
        return getattr(self.inner, name)


@dataclass
class Bench:
    """One device's disk and server, for several lives of its agent."""

    state_dir: Path
    repository: Repository
    server: FakeServerControl

    def life(self) -> EdgeDevice:
        """The next life of the agent."""
        return EdgeDevice(self.state_dir, self.repository, self.server)

    async def install(self, version: str, generation: int) -> None:
        """Install a release in a life of its own."""
        async with self.life().running() as device:
            release = publish(self.repository.root, version)
            await device.install(want(release, generation=generation))

    async def cut(self, version: str, generation: int, at: Effect, *, after: bool) -> None:
        """Begin a deployment, and lose power."""
        device = self.life()
        effects = CutEffects(device.deployer.effects, at, after)
        device.deployer.effects = effects  # type: ignore[assignment]
        async with device.running():
            release = publish(self.repository.root, version)
            await device.receive(want(release, generation=generation))
            await asyncio.wait_for(effects.reached.wait(), 45)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root = tmp_path / "repository"
    root.mkdir()
    state_dir = tmp_path / "state"
    with serving(root) as repository:
        yield Bench(state_dir, repository, FakeServerControl(state_dir / "slots"))


@pytest.mark.parametrize("server_too", [False, True], ids=["agent", "agent-and-server"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", FORWARD)
def test_a_power_cut_anywhere_ends_in_the_new_release(
    bench: Bench, at: Effect, *, after: bool, server_too: bool
) -> None:
    """One final status, one engine, and a slot file that names it."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        await bench.cut("2.0.0", 2, at, after=after)
        if server_too:
            bench.server.restart()
        assert bench.server.serves(SLOT) in {"tiny/1.0.0", "tiny/2.0.0"}
        async with bench.life().running() as device:
            final = await device.ended("d-2")
            assert len(device.finals("d-2")) == 1
            committed = device.committed()

        assert (final.outcome, final.attempt <= 2) == (Outcome.SUCCEEDED, True)
        assert committed == {SLOT: "tiny/2.0.0"}
        slot = bench.server.slots[SLOT]
        assert bench.server.serves(SLOT) == "tiny/2.0.0"
        assert (slot.previous, slot.candidate) == (None, None)

    asyncio.run(story())


@pytest.mark.parametrize("server_too", [False, True], ids=["agent", "agent-and-server"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_while_rolling_back_rolls_back(
    bench: Bench, *, after: bool, server_too: bool
) -> None:
    """The verdict is durable before the old engine is asked for."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        bench.server.errors = 9
        await bench.cut("2.0.0", 2, Effect.RESTORE, after=after)
        if server_too:
            bench.server.restart()
        async with bench.life().running() as device:
            final = await device.ended("d-2")
            assert device.committed() == {SLOT: "tiny/1.0.0"}

        assert (final.outcome, final.code) == (Outcome.ROLLED_BACK, ReasonCode.PROBATION_ERRORS)
        assert bench.server.serves(SLOT) == "tiny/1.0.0"

    asyncio.run(story())


def test_a_candidate_left_by_a_power_cut_is_closed(bench: Bench) -> None:
    """The final status was durable before the candidate was closed; the next life closes it."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        bench.server.score = 0.0
        await bench.cut("2.0.0", 2, Effect.ABORT, after=False)
        assert bench.server.slots[SLOT].candidate is not None
        async with bench.life().running():
            await eventually(lambda: bench.server.slots[SLOT].candidate is None, "it is closed")

    asyncio.run(story())


def test_the_second_power_cut_on_probation_rolls_back(bench: Bench) -> None:
    """A release that takes the device down twice is not tried a third time."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        await bench.cut("2.0.0", 2, Effect.OBSERVE, after=False)
        bench.server.restart()
        device = bench.life()
        effects = CutEffects(device.deployer.effects, Effect.OBSERVE, after=False)
        device.deployer.effects = effects  # type: ignore[assignment]
        async with device.running():
            await asyncio.wait_for(effects.reached.wait(), 45)
        bench.server.restart()
        async with bench.life().running() as last:
            final = await last.ended("d-2")

        assert (final.outcome, final.code) == (Outcome.ROLLED_BACK, ReasonCode.UNCLEAN_REBOOT)
        assert bench.server.serves(SLOT) == "tiny/1.0.0"

    asyncio.run(story())


@pytest.mark.parametrize("server_too", [False, True], ids=["agent", "agent-and-server"])
def test_an_agent_that_was_stopped_in_order_goes_on_watching(
    bench: Bench, *, server_too: bool
) -> None:
    """An upgrade of the agent is no evidence; if the server restarted, it is proved again."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        await bench.cut("2.0.0", 2, Effect.OBSERVE, after=False)
        if server_too:
            bench.server.restart()
        device = bench.life()
        device.deployer.stopped_in_order = True
        async with device.running():
            final = await device.ended("d-2")

        assert final.outcome is Outcome.SUCCEEDED
        assert final.attempt == (2 if server_too else 1)
        assert bench.server.calls.count(Op.RESTORE) == 0

    asyncio.run(story())


def test_a_newer_generation_that_waited_is_installed_after_a_power_cut(bench: Bench) -> None:
    """What was acknowledged to the broker is not forgotten, and the older one ends SUPERSEDED."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        device = bench.life()
        effects = CutEffects(device.deployer.effects, Effect.ABORT, after=False)
        device.deployer.effects = effects  # type: ignore[assignment]
        warming = bench.server.hold(Op.WARM)
        async with device.running():
            await device.receive(want(publish(bench.repository.root, "2.0.0"), generation=2))
            await asyncio.wait_for(warming.wait(), 45)
            await device.receive(want(publish(bench.repository.root, "3.0.0"), generation=3))
            await asyncio.wait_for(effects.reached.wait(), 45)
        bench.server.let_go(Op.WARM)
        async with bench.life().running() as last:
            assert (await last.ended("d-3")).outcome is Outcome.SUCCEEDED
            assert [e.outcome for e in last.finals("d-2")] == [Outcome.SUPERSEDED]

    asyncio.run(story())


def test_a_newer_generation_leaves_nothing_unproven_serving(bench: Bench) -> None:
    """The flip is undone first: asked for the old release again, the old engine serves it."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        device = bench.life()
        effects = CutEffects(device.deployer.effects, Effect.OBSERVE, after=False)
        device.deployer.effects = effects  # type: ignore[assignment]
        async with device.running():
            await device.receive(want(publish(bench.repository.root, "2.0.0"), generation=2))
            await asyncio.wait_for(effects.reached.wait(), 45)
            assert bench.server.serves(SLOT) == "tiny/2.0.0"
            await device.receive(want(publish(bench.repository.root, "1.0.0"), generation=3))
        restoring = bench.server.hold(Op.RESTORE)
        bench.server.hold(Op.LOAD)
        async with bench.life().running() as last:
            await asyncio.wait_for(restoring.wait(), 45)
            bench.server.let_go(Op.RESTORE)
            assert (await last.ended("d-3")).outcome is Outcome.NOOP
            assert [e.outcome for e in last.finals("d-2")] == [Outcome.SUPERSEDED]

        assert bench.server.serves(SLOT) == "tiny/1.0.0"

    asyncio.run(story())


def test_an_unreadable_slot_file_costs_no_engine(bench: Bench) -> None:
    """While nobody knows what a slot file names, no blob is deleted."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        blobs = sorted((bench.state_dir / "store" / "sha256").iterdir())
        for path in (bench.state_dir / "slots").iterdir():
            path.write_bytes(b"{")
        async with bench.life().running() as device:
            await device.deployer.effects.collect_garbage()

        assert sorted((bench.state_dir / "store" / "sha256").iterdir()) == blobs

    asyncio.run(story())


@pytest.mark.parametrize("op", [Op.LOAD, Op.WARM, Op.GOLDEN, Op.SWAP, Op.OBSERVE])
def test_a_server_that_restarts_costs_an_attempt(bench: Bench, op: Op) -> None:
    """The old engine serves meanwhile, and the candidate is proved from the beginning."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        async with bench.life().running() as device:
            asked = bench.server.hold(op)
            await device.receive(want(publish(bench.repository.root, "2.0.0"), generation=2))
            await asyncio.wait_for(asked.wait(), 45)
            bench.server.up = False
            bench.server.let_go(op)
            await asyncio.sleep(0)
            bench.server.restart()
            assert bench.server.serves(SLOT) == "tiny/1.0.0"
            final = await device.ended("d-2")

        assert (final.outcome, final.attempt) == (Outcome.SUCCEEDED, 2)
        assert bench.server.serves(SLOT) == "tiny/2.0.0"

    asyncio.run(story())


def test_a_server_that_is_away_is_waited_for(bench: Bench) -> None:
    """The agent downloads and stages; it neither fails nor rolls back because nobody answers."""

    async def story() -> None:
        bench.server.up = False
        async with bench.life().running() as device:
            await device.receive(want(publish(bench.repository.root, "1.0.0"), generation=1))
            await eventually(lambda: _phase(device) is Phase.STAGED, "staged")
            bench.server.restart()
            assert (await device.ended("d-1")).outcome is Outcome.SUCCEEDED

    asyncio.run(story())


def test_a_connection_lost_on_probation_is_no_verdict(bench: Bench) -> None:
    """The same server that answers again is still on probation, in the same attempt."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        async with bench.life().running() as device:
            asked = bench.server.hold(Op.OBSERVE)
            await device.receive(want(publish(bench.repository.root, "2.0.0"), generation=2))
            await asyncio.wait_for(asked.wait(), 45)
            bench.server.up = False
            bench.server.let_go(Op.OBSERVE)
            polls = bench.server.polls
            await eventually(lambda: bench.server.polls > polls + 3, "a few polls")
            bench.server.up = True
            final = await device.ended("d-2")

        assert (final.outcome, final.attempt) == (Outcome.SUCCEEDED, 1)

    asyncio.run(story())


def test_a_server_that_stays_away_on_probation_is_not_waited_for_for_ever(bench: Bench) -> None:
    """The update ends with the reason, no digest is blamed, and the old engine serves again."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        device = EdgeDevice(
            bench.state_dir,
            bench.repository,
            bench.server,
            tuning=replace(
                QUICK,
                server_lost_s=0.1,
                deadlines_s={**QUICK.deadlines_s, Phase.ROLLING_BACK: 0.1},
            ),
        )
        async with device.running():
            asked = bench.server.hold(Op.OBSERVE)
            release = publish(bench.repository.root, "2.0.0")
            policy = Policy(deadline_s=1.0)
            await device.receive(want(release, generation=2, policy=policy))
            await asyncio.wait_for(asked.wait(), 45)
            bench.server.up = False  # as one that hangs: it comes back as it was
            bench.server.let_go(Op.OBSERVE)
            final = await device.ended("d-2")
            assert bench.server.serves(SLOT) == "tiny/2.0.0"
            bench.server.up = True
            device.deployer.server_changed()
            await eventually(lambda: bench.server.serves(SLOT) == "tiny/1.0.0", "the old engine")

        assert (final.outcome, final.code) == (Outcome.TIMED_OUT, ReasonCode.SERVER_UNAVAILABLE)

    asyncio.run(story())


def test_what_an_agent_left_half_done_is_settled_by_the_next(bench: Bench) -> None:
    """The slot file is the truth: a healthy server that serves something else is put right."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        await bench.install("2.0.0", 2)
        slots = SlotFiles(bench.state_dir / "slots")
        file = slots.read(SLOT)
        assert file is not None
        assert file.previous is not None
        slots.replace(file.model_copy(update={"current": file.previous, "previous": None}))
        async with bench.life().running():
            await eventually(lambda: bench.server.serves(SLOT) == "tiny/1.0.0", "it is put right")

    asyncio.run(story())


def test_a_server_that_dies_of_every_candidate_is_not_asked_for_ever(bench: Bench) -> None:
    """After the attempts the policy allows, the deployment fails and the old engine serves."""

    async def story() -> None:
        await bench.install("1.0.0", 1)
        bench.server.failures[Op.LOAD] = ControlError(ReasonCode.SERVER_UNAVAILABLE, "it died")
        async with bench.life().running() as device:
            policy = Policy(retry=Retry(max_attempts=2), deadline_s=30.0)
            release = publish(bench.repository.root, "2.0.0")
            await device.receive(want(release, generation=2, policy=policy))
            final = await device.ended("d-2")

        assert final.outcome is Outcome.FAILED_NO_CHANGE
        assert final.code is ReasonCode.ATTEMPTS_EXHAUSTED
        assert bench.server.serves(SLOT) == "tiny/1.0.0"

    asyncio.run(story())


def _phase(device: EdgeDevice) -> Phase:
    unfinished = device.journal.unfinished()
    return unfinished[0].progress.phase if unfinished else Phase.IDLE
