"""``stoker-agent doctor``: finds what is wrong on a box, says what to do, and changes nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stoker_agent.app.reach import certificate
from stoker_agent.config import Config, load_config
from stoker_trust.pki import CA, Authority
from support.agent_process import AgentProcess
from support.cloud import Cloud, running_cloud, write_agent_config
from support.environments import ROOT
from support.waiting import wait_until

NOW = datetime.now(UTC)


@pytest.fixture
def cloud(short_tmp: Path) -> Iterator[Cloud]:
    with running_cloud(short_tmp / "cloud") as cloud:
        yield cloud


@pytest.fixture
def agent(cloud: Cloud, short_tmp: Path) -> AgentProcess:
    config = write_agent_config(
        cloud, short_tmp / "agent.toml", short_tmp / "state", short_tmp / "run"
    )
    return AgentProcess(config, short_tmp / "state", "--with-server")


def examined(agent: AgentProcess) -> dict[str, dict[str, Any]]:
    """Each finding by its name."""
    answer = agent.command("doctor", "--json")
    assert not answer.stderr
    findings = json.loads(answer.stdout)["findings"]
    ill = {finding["name"] for finding in findings if finding["health"] == "bad"}
    assert (answer.returncode == 0) is (not ill)
    return {finding["name"]: finding for finding in findings}


def documented() -> list[str]:
    """The findings that docs/operations.md explains, in its order."""
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.split("| finding |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_a_box_that_was_never_started_is_told_what_to_start(
    agent: AgentProcess, short_tmp: Path
) -> None:
    """What is missing is found, with the command to give; and nothing is created by looking."""
    found = examined(agent)

    assert "systemctl start stoker-agent" in found["agent"]["advice"]
    assert "systemctl start stoker-server" in found["server"]["advice"]
    assert {found[name]["health"] for name in ("state", "agent", "server", "socket")} == {"bad"}
    assert {found[name]["health"] for name in ("trust", "broker", "repository")} == {"ok"}
    assert not (short_tmp / "state").exists()
    assert not (short_tmp / "run").exists()


@pytest.mark.slow
def test_a_device_that_works_is_well_until_something_breaks(
    agent: AgentProcess, cloud: Cloud, short_tmp: Path
) -> None:
    """A serving device has no bad finding; each thing that is then broken has one of its own."""
    with agent:
        cloud.ended(cloud.roll_out(cloud.release("1.0.0"), 1))
        well = examined(agent)
        assert [name for name, one in well.items() if one["health"] == "bad"] == []
        assert "tiny/1.0.0" in well["slots"]["found"]
        assert list(well) == documented()

        agent.command("hold")
        slot = json.loads(next((short_tmp / "state" / "slots").glob("*.json")).read_text())
        blob = Path(slot["current"]["path"])
        blob.chmod(0o600)
        blob.write_bytes(b"rotten")
        cloud.keyring.anchor("director-root").write_bytes(b"")
        cloud.broker.stop()
        found = examined(agent)

    assert "stoker-agent release" in found["updates"]["advice"]
    assert "roll the release out again" in found["slots"]["advice"]
    assert "director-root.json" in found["trust"]["found"]
    assert found["broker"]["health"] == "bad"
    assert found["repository"]["health"] == "ok"


@pytest.mark.slow
def test_a_killed_agent_is_missed(agent: AgentProcess, short_tmp: Path) -> None:
    """That nothing is updated any more is a finding, while a running agent is none."""
    with agent:
        wait_until((short_tmp / "state" / "state.db").exists, 30, "it works")
        assert examined(agent)["agent"]["health"] == "ok"
        agent.kill()

        assert examined(agent)["agent"]["health"] == "bad"


def with_certificate(cloud: Cloud, folder: Path, name: str, now: datetime) -> Config:
    """The configuration of a device with a certificate that was made at some time."""
    authority = Authority(folder / "pki")
    authority.create(now)
    authority.issue(name, now)
    path = write_agent_config(cloud, folder / "agent.toml", folder / "state", folder / "run")
    files = {
        "ca": authority.certificate(CA),
        "certificate": authority.certificate(name),
        "key": authority.key(name),
    }
    lines = [f"{key} = {json.dumps(str(value))}" for key, value in files.items()]
    path.write_text(path.read_text() + "[mqtt.tls]\n" + "\n".join(lines) + "\n")
    return load_config(path)


@pytest.mark.parametrize(
    ("name", "made", "words"),
    [
        ("edge-1", NOW - timedelta(days=400), "ended at"),
        ("edge-2", NOW, "is for edge-2, and this is edge-1"),
        ("edge-1", NOW + timedelta(days=30), "which is to come"),
    ],
)
def test_a_certificate_that_the_broker_would_refuse_is_named(
    cloud: Cloud, short_tmp: Path, name: str, made: datetime, words: str
) -> None:
    """Ended, somebody else's, or from the future because the clock is wrong."""
    answer = certificate(with_certificate(cloud, short_tmp, name, made))

    assert words in answer.found
    assert answer.advice
    assert not answer.still_works


def test_a_certificate_that_ends_soon_is_a_warning(cloud: Cloud, short_tmp: Path) -> None:
    """There is time to renew it, and the device is not ill before."""
    made = NOW - timedelta(days=380)
    answer = certificate(with_certificate(cloud, short_tmp, "edge-1", made))

    assert answer.still_works
    assert "rotate_certificates" in answer.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_root_asks_for_is_done_as_the_owner_of_the_state(tmp_path: Path) -> None:
    """A command of root's leaves no file behind that the service can not write."""
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    program = (
        "import os, pathlib, sys; from stoker_agent.cli import _act_as_owner_of;"
        "_act_as_owner_of(pathlib.Path(sys.argv[1])); print(os.getresuid(), os.getgroups())"
    )
    command = [sys.executable, "-c", program, str(state)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "(65534, 65534, 65534) [65534]"
