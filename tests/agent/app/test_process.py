"""The agent as a process: started, stopped, watched, and alone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_agent.app.notify import Notifier
from stoker_contract.codes import Outcome
from stoker_contract.desired import Probation
from stoker_contract.status import Phase
from support.agent_process import AgentProcess
from support.cloud import Cloud, running_cloud, write_agent_config
from support.edge_device import SLOT
from support.mosquitto import Observer
from support.waiting import wait_until


@pytest.fixture
def cloud(short_tmp: Path) -> Iterator[Cloud]:
    with running_cloud(short_tmp / "cloud") as cloud:
        yield cloud


def agent_of(cloud: Cloud, folder: Path, *options: str) -> AgentProcess:
    """An agent with a state directory of its own."""
    config = write_agent_config(cloud, folder / "agent.toml", folder / "state", folder / "run")
    return AgentProcess(config, folder / "state", *options)


@pytest.mark.slow
def test_with_server_keeps_a_server_running_and_takes_it_along(
    cloud: Cloud, short_tmp: Path
) -> None:
    """A killed server comes back and serves; SIGTERM ends both with status 0."""
    with agent_of(cloud, short_tmp, "--with-server") as agent:
        final = cloud.ended(cloud.roll_out(cloud.release("1.0.0"), 1))
        assert final.outcome is Outcome.SUCCEEDED
        first = server_pids(agent)[-1]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server_pids(agent)[-1] != first, 30, "another server")
        wait_until(lambda: serving(cloud) == "tiny/1.0.0", 30, "it serves what was committed")
        last = server_pids(agent)[-1]
        assert agent.stop() == 0

    assert not Path(f"/proc/{last}").exists()


@pytest.mark.slow
def test_a_killed_agent_takes_its_child_along(cloud: Cloud, short_tmp: Path) -> None:
    """No server is left behind that nobody knows of."""
    with agent_of(cloud, short_tmp, "--with-server") as agent:
        wait_until(lambda: server_pids(agent), 30, "the server")
        (pid,) = server_pids(agent)
        agent.kill()

        wait_until(lambda: ended(pid), 30, "the server ends")


def server_pids(agent: AgentProcess) -> list[int]:
    """Every server the agent started."""
    return [entry["pid"] for entry in agent.log() if entry.get("event") == "server.started"]


def serving(cloud: Cloud) -> str | None:
    """What the device says that its worker runs, in its last report."""
    reported = cloud.reported()
    slot = reported.slots.get(SLOT) if reported else None
    return slot.release if slot and slot.ready else None


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_only_one_agent_works_in_a_state_directory(cloud: Cloud, short_tmp: Path) -> None:
    """The second one says so and exits with status 2."""
    with agent_of(cloud, short_tmp) as agent:
        wait_until((short_tmp / "state" / "state.db").exists, 30, "the first works")
        second = agent.command("run")

    assert second.returncode == 2
    assert "another agent" in second.stderr


def test_a_broken_configuration_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """No traceback, and the file is named."""
    config = tmp_path / "agent.toml"
    config.write_text("[device]\nid = 'edge-1'\n")
    answer = AgentProcess(config, tmp_path).command("run")

    assert answer.returncode == 2
    assert str(config) in answer.stderr
    assert "Traceback" not in answer.stderr


def test_help_needs_nothing_but_the_standard_library() -> None:
    """``--help`` answers without loading the agent, on a device as on a laptop."""
    program = (
        "import sys; from stoker_agent.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'onnx', 'numpy', 'tuf', 'paho'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert answer.stdout.splitlines()[-1] == "[]"


def test_systemd_is_told_over_the_raw_socket(short_tmp: Path) -> None:
    """A datagram is all it takes; without a socket nothing happens."""
    path = short_tmp / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(5)
        Notifier({"NOTIFY_SOCKET": str(path)}).ready()
        Notifier({}).ready()

        assert systemd.recv(100) == b"READY=1"


@pytest.mark.slow
def test_a_broker_that_dies_in_between_gets_the_final_status_later(
    cloud: Cloud, short_tmp: Path
) -> None:
    """The deployment goes on without a network, and what it said survives the agent, too."""
    with agent_of(cloud, short_tmp, "--with-server") as agent:
        cloud.repository.bad.only = ".onnx"
        cloud.repository.bad.stall_after = 0
        deployment = cloud.roll_out(cloud.release("1.0.0"), 1)
        wait_until(lambda: agent.phase() is Phase.DOWNLOADING, 30, "downloading")
        cloud.broker.kill()
        cloud.repository.resume()
        wait_until(lambda: agent.phase() is Phase.IDLE, 60, "the deployment ends")
        assert cloud.finals(deployment) == []
        agent.kill()
        cloud.broker.start()
        with Observer(cloud.broker.port) as cloud.observer:
            agent.start()
            final = cloud.ended(deployment)
            wait_until(lambda: serving(cloud) == "tiny/1.0.0", 30, "the report")

    assert final.outcome is Outcome.SUCCEEDED
    assert len(cloud.finals(deployment)) == 1


@pytest.mark.slow
def test_a_first_release_that_fails_has_nothing_to_go_back_to(
    cloud: Cloud, short_tmp: Path
) -> None:
    """It is rolled back to nothing: no engine serves, and nothing is committed."""
    with agent_of(cloud, short_tmp, "--with-server") as agent:
        deployment = cloud.roll_out(
            cloud.release("1.0.0"), 1, Probation(duration_s=60.0, min_samples=10)
        )
        wait_until(lambda: agent.phase() is Phase.PROBATION, 60, "probation")
        assert agent.command("rollback").returncode == 0
        final = cloud.ended(deployment)
        why = agent.command("why").stdout
        wait_until(lambda: serving(cloud) is None, 30, "the report that nothing serves")

    assert final.outcome is Outcome.ROLLED_BACK
    assert "ROLLED_BACK" in why
    assert not (short_tmp / "state" / "slots" / f"{SLOT}.json").exists()
