"""The service files: systemd understands all of them, and they confine what they start."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = ("stoker-agent.service", "stoker-server.service")
MAX_EXPOSURE = 2.0

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


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_service_is_confined(installed: Path, unit: str) -> None:
    """The exposure that systemd computes stays low; the server alone may see devices."""
    score = analyze("security", "--offline=true", str(installed / unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", score)
    assert found is not None, score
    assert float(found[1]) <= MAX_EXPOSURE, score


@pytest.mark.parametrize("unit", UNITS)
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


@pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed"
)
def test_the_user_can_be_made(tmp_path: Path) -> None:
    """systemd-sysusers makes user and groups in an empty root."""
    (tmp_path / "etc").mkdir()
    configuration = str(SYSTEMD / "stoker.sysusers")
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", configuration], check=True, timeout=60
    )
    assert "stoker:" in (tmp_path / "etc" / "passwd").read_text()
    assert "stoker-clients:" in (tmp_path / "etc" / "group").read_text()
