"""A disk that fills up: nothing ends, a rollback works, and all goes on once there is room."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from stoker_agent.app.wishes import Wishes
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.control import Op
from support.agent_process import AgentProcess
from support.cloud import Cloud, running_cloud, write_agent_config
from support.edge_device import SLOT, EdgeDevice, publish, want
from support.fake_server_control import FakeServerControl
from support.http_server import Repository, serving
from support.small_disk import SmallDisk, mounted_small_disk
from support.waiting import eventually, wait_until

Story = Callable[[EdgeDevice, FakeServerControl], Coroutine[None, None, None]]


@pytest.fixture
def disk(short_tmp: Path) -> Iterator[SmallDisk]:
    # A download leaves 64 MiB free.
    with mounted_small_disk(short_tmp / "disk", size_mib=128) as disk:
        yield disk


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    root.mkdir()
    with serving(root) as repository:
        yield repository


@pytest.fixture
def tell(disk: SmallDisk, repository: Repository) -> Callable[[Story], None]:
    """Run a story on a device that went from release 1.0.0 to 2.0.0."""

    def run(story: Story) -> None:
        async def whole() -> None:
            state_dir = disk.path / "state"
            server = FakeServerControl(state_dir / "slots")
            async with EdgeDevice(state_dir, repository, server).running() as device:
                for number in (1, 2):
                    release = publish(repository.root, f"{number}.0.0")
                    await device.install(want(release, generation=number))
                await story(device, server)

        asyncio.run(whole())

    return run


def fill(disk: SmallDisk, device: EdgeDevice, *, reserve: bool) -> None:
    """Fill the disk; without ``reserve`` what was put aside is used up as well."""
    if not reserve:
        device.journal.reserve.free()
    disk.fill(journal=device.state_dir / "state.db")


def test_a_rollback_by_hand_needs_no_free_disk(
    tell: Callable[[Story], None], disk: SmallDisk
) -> None:
    """The reserve is there for the file that a boot reads."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        fill(disk, device, reserve=True)
        device.deployer.want_rollback()

        await eventually(lambda: device.committed() == {SLOT: "tiny/1.0.0"}, "the slot file")
        assert server.serves(SLOT) == "tiny/1.0.0"

    tell(story)


def test_a_rollback_by_hand_serves_before_there_is_room_for_its_file(
    tell: Callable[[Story], None], disk: SmallDisk
) -> None:
    """With the reserve gone the old engine serves at once; the file follows when it can."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        fill(disk, device, reserve=False)
        device.deployer.want_rollback()
        await eventually(lambda: server.serves(SLOT) == "tiny/1.0.0", "the old engine serves")
        assert device.committed() == {SLOT: "tiny/2.0.0"}
        disk.make_room()

        await eventually(lambda: device.committed() == {SLOT: "tiny/1.0.0"}, "the slot file")
        await device.install(want(publish(device.repository.root, "3.0.0"), generation=3))

    tell(story)


def test_a_verdict_that_can_not_be_written_is_carried_out(
    tell: Callable[[Story], None], disk: SmallDisk
) -> None:
    """Probation fails while the disk is full: the old engine serves, the words come later."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        observing = server.hold(Op.OBSERVE)
        await device.receive(want(publish(device.repository.root, "3.0.0"), generation=3))
        await asyncio.wait_for(observing.wait(), 45)
        fill(disk, device, reserve=False)
        server.errors = 9
        server.let_go(Op.OBSERVE)
        await eventually(lambda: server.serves(SLOT) == "tiny/2.0.0", "the old engine serves")
        assert device.finals("d-3") == []
        disk.make_room()
        final = await device.ended("d-3")

        assert (final.outcome, final.code) == (Outcome.ROLLED_BACK, ReasonCode.PROBATION_ERRORS)

    tell(story)


def test_a_desired_state_that_can_not_be_kept_is_taken_later(
    tell: Callable[[Story], None], disk: SmallDisk
) -> None:
    """Nobody has to send it a second time."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        retrying = asyncio.create_task(device.deployer.retry_verification())
        try:
            wanted = want(publish(device.repository.root, "3.0.0"), generation=3)
            fill(disk, device, reserve=False)
            await device.receive(wanted)
            assert device.journal.generation()[0] == 2
            disk.make_room()
            assert (await device.ended("d-3")).outcome is Outcome.SUCCEEDED
        finally:
            retrying.cancel()
            await asyncio.wait([retrying])

    tell(story)


def test_a_wish_waits_for_room(tell: Callable[[Story], None], disk: SmallDisk) -> None:
    """What a person asked for is taken out of the journal once that can be written."""

    async def story(device: EdgeDevice, server: FakeServerControl) -> None:
        wishes = Wishes(device.journal, device.deployer, lambda: None, interval_s=0.02)
        device.journal.request("rollback")
        fill(disk, device, reserve=False)
        looking = asyncio.create_task(wishes.run())
        try:
            await asyncio.wait([looking], timeout=0.2)
            assert not looking.done()
            disk.make_room()
            await eventually(lambda: server.serves(SLOT) == "tiny/1.0.0", "the rollback")
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    tell(story)


@pytest.fixture
def cloud(short_tmp: Path) -> Iterator[Cloud]:
    with running_cloud(short_tmp / "cloud") as cloud:
        yield cloud


@pytest.mark.slow
def test_a_real_agent_outlives_a_full_disk(cloud: Cloud, disk: SmallDisk, short_tmp: Path) -> None:
    """It rolls back by hand on a full disk, lives on, is started on it, and updates afterwards."""
    state = disk.path / "state"
    config = write_agent_config(cloud, short_tmp / "agent.toml", state, short_tmp / "run")
    with AgentProcess(config, state, "--with-server") as agent:
        for generation in (1, 2):
            ended = cloud.ended(cloud.roll_out(cloud.release(f"{generation}.0.0"), generation))
            assert ended.outcome is Outcome.SUCCEEDED
        disk.fill(journal=state / "state.db")
        assert agent.command("rollback").returncode == 0
        wait_until(lambda: _serving(cloud) == "tiny/1.0.0", 30, "the engine before")

        def no_room_left() -> bool:
            disk.fill(journal=state / "state.db")  # also what the reserve has given back
            return _told(agent, "telemetry.not_kept") > 0

        wait_until(no_room_left, 30, "telemetry finds no room")
        assert _told(agent, "agent.started") == 1
        agent.kill()
        (state / "reserve").unlink(missing_ok=True)
        disk.fill(journal=state / "state.db")
        agent.start()
        wait_until(lambda: _told(agent, "agent.waits_for_disk"), 30, "a start on a full disk")
        assert agent.command("hold").returncode == 1
        disk.make_room()
        ended = cloud.ended(cloud.roll_out(cloud.release("3.0.0"), 3))
        wait_until((state / "reserve").exists, 60, "the reserve is put aside again")

    assert ended.outcome is Outcome.SUCCEEDED
    assert _told(agent, "agent.started") == 2


def _serving(cloud: Cloud) -> str | None:
    reported = cloud.reported()
    slot = reported.slots.get(SLOT) if reported else None
    return slot.release if slot and slot.ready else None


def _told(agent: AgentProcess, event: str) -> int:
    return sum(entry.get("event") == event for entry in agent.log())
