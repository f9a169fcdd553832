"""The units on every systemd that devices have: understood, confined, and really started."""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from e2e.cache import CHECKOUT
from e2e.images import image
from e2e.sandbox import run_in_sandbox
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.promises import Scorecard

SUITES: Final = ("bullseye", "bookworm", "trixie")
PACKAGES: Final = ("systemd", "systemd-sysv", "dbus")
MAX_EXPOSURE: Final = 2.0
FIRST_THAT_SCORES: Final = 250
"""The first systemd whose ``security`` looks at a file, with ``--offline``."""
# What a unit starts has to exist; what it is does not matter here.
PROGRAM: Final = re.compile(r"^(Exec\w+)=/\S+", re.MULTILINE)


def run(narrator: Narrator) -> int:
    """Look at the units with each systemd. Returns 0 only if all is well."""
    narrator.title("stoker, on every systemd", "Each from its own Debian, not booted.")
    with narrator.waiting("Their systems, unless they are in the cache"):
        roots = {suite: image(suite, PACKAGES) for suite in SUITES}
    return run_in_sandbox(lambda: _look(narrator, roots), lambda _init: None)


def _look(narrator: Narrator, roots: dict[str, Path]) -> int:
    began_s, scorecard = time.monotonic(), Scorecard()
    for suite, root in roots.items():
        version = _inside(root, "/mnt", "systemctl", "--version").stdout.split()[1]
        narrator.step(f"{suite}, systemd {version}")
        for unit, complaints, exposure in _looked_at(root):
            scores = unit.endswith(".service") and int(version) >= FIRST_THAT_SCORES
            confined = exposure is not None and exposure <= MAX_EXPOSURE
            held = not complaints and (confined or not scores)
            measured = f"exposure {exposure}" if scores else "understood"
            text = f"systemd {version} understands {unit}"
            narrator.promise(scorecard.add(text, complaints or measured, held=held))
    narrator.summary(scorecard, time.monotonic() - began_s)
    return 0 if scorecard.all_held else 1


def _looked_at(root: Path) -> list[tuple[str, str, float | None]]:
    found = []
    with tempfile.TemporaryDirectory() as inside:
        units = sorted((CHECKOUT / "systemd").glob("*.*"))
        for path in units:
            (Path(inside) / path.name).write_text(PROGRAM.sub(r"\1=/bin/true", path.read_text()))
        for path in units:
            if path.suffix in {".service", ".socket", ".timer"}:
                place = f"/mnt/{path.name}"
                told = _inside(root, inside, "systemd-analyze", "verify", "--man=no", place)
                exposure = _exposure(root, inside, place) if path.suffix == ".service" else None
                found.append((path.name, (told.stdout + told.stderr).strip(), exposure))
    return found


def _exposure(root: Path, units: str, place: str) -> float | None:
    told = _inside(root, units, "systemd-analyze", "security", "--offline=true", place)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    return float(score[1]) if score else None


def _inside(root: Path, units: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a system that is not booted, with the units at ``/mnt``."""
    return subprocess.run(
        [
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--read-only", "--pipe"),
            "--setenv=SYSTEMD_COLORS=0",
            *(f"--directory={root}", f"--bind-ro={units}:/mnt", "--", *command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
