"""The service files: systemd understands all of them, and they confine what they start."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("stoker*.*") if path.suffix in
               {".service", ".socket", ".timer"})  # fmt: skip
SERVICES = [unit for unit in UNITS if unit.endswith(".service")]
OF_THE_DEVICE = ("stoker-agent.service", "stoker-server.service")
USAGE = 2
MAX_EXPOSURE = 2.0
MAX_EXPOSURE_WITH_GPU = 2.5

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return text


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with programs that exist here in place of the ones in /opt/stoker."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        started = re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(started)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line(installed: Path, unit: str) -> None:
    """No unknown key, no unknown value: systemd ignores those with a warning only."""
    text = analyze("verify", "--recursive-errors=yes", "--man=no", str(installed / unit))
    assert "Unknown" not in text


def exposure(unit: Path) -> float:
    score = analyze("security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", score)
    assert found is not None, score
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_confined(installed: Path, unit: str) -> None:
    """The exposure that systemd computes stays low, for all that we run as a service."""
    assert exposure(installed / unit) <= MAX_EXPOSURE


@needs_systemd
@pytest.mark.parametrize("drop_in", sorted((SYSTEMD / "drop-ins").glob("*.conf")), ids=str)
def test_drop_ins_are_understood_and_keep_a_service_confined(
    installed: Path, drop_in: Path
) -> None:
    """With what a GPU needs, or with a credential, it is still no open door."""
    unit = re.findall(r"/(stoker-\w+\.service)\.d/", drop_in.read_text())[0]
    folder = installed / f"{unit}.d"
    folder.mkdir()
    shutil.copy(drop_in, folder)

    assert "Unknown" not in analyze(
        "verify", "--recursive-errors=yes", "--man=no", str(installed / unit)
    )
    assert exposure(installed / unit) <= MAX_EXPOSURE_WITH_GPU


@pytest.mark.parametrize("unit", OF_THE_DEVICE)
def test_a_service_never_gives_up_and_never_takes_the_other_down(unit: str) -> None:
    """Restarted for ever, bound to nothing, and the shared folder outlives each of them."""
    lines = (SYSTEMD / unit).read_text().splitlines()
    for line in (
        "Restart=always",
        "StartLimitIntervalSec=0",
        "RuntimeDirectory=stoker",
        "RuntimeDirectoryPreserve=yes",
        "StateDirectory=stoker",
        "User=stoker",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith(("Requires=", "BindsTo=", "PartOf="))]


def started(unit: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The program of a unit, started here with the words of the unit and some more."""
    found = re.search(r"^ExecStart=\S+/(\S+) (.+)$", (SYSTEMD / unit).read_text(), re.MULTILINE)
    assert found is not None
    words = found[2].replace("${STOKER_HTTP}", "none").split()
    program = Path(sys.executable).with_name(found[1])
    return subprocess.run(
        [program, *words, *more], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("unit", [*OF_THE_DEVICE, "stoker-controller.service"])
def test_a_program_can_be_asked_whether_it_understands_its_unit(unit: str) -> None:
    """What a playbook asks before it switches; an option that is not known is a refusal."""
    understood = started(unit, "--parse-only")
    assert understood.returncode == 0, understood.stderr

    refused = started(unit, "--from-the-future", "--parse-only")
    assert refused.returncode == USAGE
    assert "--from-the-future" in refused.stderr


def test_applications_reach_the_socket_and_nobody_else() -> None:
    """The socket is systemd's, for the group of applications, in a folder of the service's user."""
    lines = (SYSTEMD / "stoker-server.socket").read_text().splitlines()
    for line in (
        "ListenStream=/run/stoker/inference.sock",
        "SocketMode=0660",
        "SocketGroup=stoker-clients",
    ):
        assert line in lines
    folders = (SYSTEMD / "stoker.tmpfiles").read_text()
    assert re.search(r"^d /run/stoker\s+0755 stoker stoker", folders, re.MULTILINE)


@pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed"
)
def test_the_users_can_be_made(tmp_path: Path) -> None:
    """systemd-sysusers makes users and groups in an empty root."""
    (tmp_path / "etc").mkdir()
    for configuration in sorted(SYSTEMD.glob("*.sysusers")):
        command = ["systemd-sysusers", f"--root={tmp_path}", str(configuration)]
        subprocess.run(command, check=True, timeout=60)
    assert "stoker-fleet:" in (tmp_path / "etc" / "passwd").read_text()
    assert "stoker:" in (tmp_path / "etc" / "passwd").read_text()
    assert "stoker-clients:" in (tmp_path / "etc" / "group").read_text()
