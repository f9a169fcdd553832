"""The real agent, killed with -9 in the middle of real deployments, while clients are served."""

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stoker_contract.codes import Outcome
from stoker_contract.control import Op
from stoker_contract.desired import Probation
from stoker_contract.status import Phase
from support.agent_process import AgentProcess
from support.cloud import Cloud, running_cloud, write_agent_config
from support.control_proxy import ControlProxy, Side, control_proxy
from support.edge_device import SLOT, WIDTH
from support.server_process import ServerProcess
from support.waiting import wait_until

pytestmark = pytest.mark.slow

REQUEST = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [1.0] * WIDTH}]
}


@dataclass
class Prober:
    """A client that never stops asking.

    Attributes:
        failures: every answer that was not one.
    """

    server: ServerProcess
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until it is stopped."""
        while not self.stopped.wait(0.02):
            status, _, body = self.server.request("POST", f"/v2/models/{SLOT}/infer", REQUEST)
            self.answers += 1
            if status != 200:
                self.failures.append(f"{status}: {body[:200]!r}")


@dataclass
class World:
    """One device of one cloud, with an agent that can be killed."""

    cloud: Cloud
    server: ServerProcess
    proxy: ControlProxy
    agent: AgentProcess
    generation: int = 0

    def roll_out(self, probation: Probation | None = None) -> str:
        """Roll the next release out; returns the deployment's id."""
        self.generation += 1
        release = self.cloud.release(f"{self.generation}.0.0")
        return self.cloud.roll_out(release, self.generation, probation)

    def serving(self) -> str | None:
        """The release that answers requests."""
        status = self.server.control().status(SLOT)
        return status.active.release if status.active else None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="stk", dir="/tmp"))
        root = Path(name)
        cloud = stack.enter_context(running_cloud(root / "cloud"))
        server = stack.enter_context(ServerProcess(root))
        run_dir = root / "agent-run"
        proxy = stack.enter_context(
            control_proxy(run_dir / "control.sock", server.run_dir / "control.sock")
        )
        config = write_agent_config(cloud, root / "agent.toml", server.state_dir, run_dir)
        world = World(cloud, server, proxy, AgentProcess(config, server.state_dir))
        with world.agent:
            first = cloud.ended(world.roll_out())
            assert first.outcome is Outcome.SUCCEEDED, first
            assert world.agent.stop() == 0
        yield world


@pytest.fixture
def prober(world: World) -> Iterator[Prober]:
    prober = Prober(world.server)
    thread = threading.Thread(target=prober.run)
    thread.start()
    yield prober
    prober.stopped.set()
    thread.join()


@pytest.mark.parametrize(
    ("phase", "op", "side"),
    [
        (Phase.DOWNLOADING, None, "request"),
        (Phase.STAGED, Op.STATUS, "request"),
        (Phase.LOADING, Op.LOAD, "request"),
        (Phase.LOADING, Op.LOAD, "answer"),
        (Phase.WARMING, Op.WARM, "request"),
        (Phase.GOLDEN, Op.GOLDEN, "answer"),
        (Phase.SWAPPING, Op.SWAP, "request"),
        (Phase.SWAPPING, Op.SWAP, "answer"),
        (Phase.PROBATION, Op.OBSERVE, "request"),
        (Phase.COMMITTING, Op.RETIRE, "request"),
        (Phase.COMMITTING, Op.RETIRE, "answer"),
    ],
)
def test_an_agent_killed_in_any_phase_finishes_what_it_began(
    world: World, prober: Prober, phase: Phase, op: Op | None, side: Side
) -> None:
    """After kill -9 there is one final status, the new release serves, and no request was lost."""
    with world.agent as agent:
        if op is None:
            world.cloud.repository.bad.only = ".onnx"
            world.cloud.repository.bad.stall_after = 0
        else:
            world.proxy.hold(op, side)
        deployment = world.roll_out()
        wait_until(lambda: agent.phase() is phase, 30, f"the deployment is {phase}")
        wait_until(lambda: op is None or world.proxy.reached(), 30, f"{op} is held back")
        agent.kill()
        world.proxy.release()
        world.cloud.repository.bad.stall_after = None
        world.cloud.repository.resume()

        assert world.cloud.finals(deployment) == []
        agent.start()
        final = world.cloud.ended(deployment)
        assert agent.stop() == 0

    assert final.outcome is Outcome.SUCCEEDED
    assert final.attempt <= 2
    assert len(world.cloud.finals(deployment)) == 1
    assert world.serving() == f"tiny/{world.generation}.0.0"
    assert prober.answers
    assert prober.failures == []


def test_an_agent_killed_while_rolling_back_rolls_back(world: World, prober: Prober) -> None:
    """The old engine serves again although the agent died between the verdict and the flip."""
    before = world.serving()
    with world.agent as agent:
        world.proxy.hold(Op.RESTORE)
        strict = Probation(duration_s=30.0, min_samples=1, p99_ms=1e-6)
        deployment = world.roll_out(strict)
        wait_until(lambda: agent.phase() is Phase.ROLLING_BACK, 30, "rolling back")
        wait_until(world.proxy.reached, 30, "restore is held back")
        agent.kill()
        world.proxy.release()
        agent.start()
        final = world.cloud.ended(deployment)
        assert agent.stop() == 0

    assert final.outcome is Outcome.ROLLED_BACK
    assert len(world.cloud.finals(deployment)) == 1
    assert world.serving() == before
    assert prober.failures == []


def test_a_server_killed_on_probation_serves_the_old_engine_and_is_proved_again(
    world: World,
) -> None:
    """A power cut of the server costs an attempt, never the release that was committed."""
    before = world.serving()
    with world.agent as agent:
        world.proxy.hold(Op.OBSERVE, "answer")
        deployment = world.roll_out()
        wait_until(lambda: agent.phase() is Phase.PROBATION, 30, "probation")
        wait_until(world.proxy.reached, 30, "observe is held back")
        world.server.kill()
        world.proxy.release()
        world.server.start()
        world.server.wait_ready(SLOT)
        assert world.serving() in {before, f"tiny/{world.generation}.0.0"}
        final = world.cloud.ended(deployment)
        assert agent.stop() == 0

    assert (final.outcome, final.attempt) == (Outcome.SUCCEEDED, 2)
    assert world.serving() == f"tiny/{world.generation}.0.0"


def test_what_the_command_line_says_needs_neither_network_nor_agent(world: World) -> None:
    """``status``, ``why`` and ``hold`` answer from the disk and the local server."""
    agent = world.agent
    status = json.loads(agent.command("status", "--json").stdout)
    why = json.loads(agent.command("why", "--json").stdout)

    assert status["slots"][SLOT]["serving"] == world.serving()
    assert why[0]["outcome"] == "SUCCEEDED"
    assert agent.command("hold").returncode == 0
    assert json.loads(agent.command("status", "--json").stdout)["held"] is True
    assert agent.command("release").returncode == 0
