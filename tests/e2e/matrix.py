"""The units on every systemd that devices have: understood, confined, and really started."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from e2e.cache import CHECKOUT
from e2e.images import image
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.promises import Scorecard

SUITES: Final = ("bullseye", "bookworm", "trixie")
PACKAGES: Final = ("systemd", "systemd-sysv", "dbus")
MAX_EXPOSURE: Final = 2.0
# What a unit starts has to exist; what it is does not matter here.
PROGRAM: Final = re.compile(r"^(Exec\w+)=(/opt/\S+)", re.MULTILINE)


def run(narrator: Narrator) -> int:
    """Look at the units with each systemd. Returns 0 only if all is well."""
    scorecard = Scorecard()
    narrator.title("stoker, on every systemd", "Each from its own Debian, in a chroot.")
    for suite in SUITES:
        narrator.step(suite)
        with narrator.waiting("Its system, unless it is in the cache"):
            root = image(suite, PACKAGES)
        version = _chroot(root, "systemctl", "--version").stdout.split()[1]
        for unit, complaints, exposure in _looked_at(root):
            held = not complaints and (exposure is None or exposure <= MAX_EXPOSURE)
            measured = "not scored" if exposure is None else f"exposure {exposure}"
            promise = scorecard.add(
                f"systemd {version} understands {unit}", complaints or measured, held=held
            )
            narrator.promise(promise)
    narrator.summary(scorecard, 0)
    return 0 if scorecard.all_held else 1


def _looked_at(root: Path) -> list[tuple[str, str, float | None]]:
    found = []
    with tempfile.TemporaryDirectory(dir=root / "root") as inside:
        folder = Path(inside)
        units = sorted((CHECKOUT / "systemd").glob("*.*"))
        for path in units:
            text = PROGRAM.sub(r"\1=/bin/true", path.read_text())
            (folder / path.name).write_text(text)
        shutil.chown(folder, 0)
        names = [p.name for p in units if p.suffix in {".service", ".socket", ".timer"}]
        for name in names:
            place = f"/root/{folder.name}/{name}"
            told = _chroot(root, "systemd-analyze", "verify", "--man=no", place)
            exposure = _exposure(root, place) if name.endswith(".service") else None
            found.append((name, (told.stdout + told.stderr).strip(), exposure))
    return found


def _exposure(root: Path, place: str) -> float | None:
    told = _chroot(root, "systemd-analyze", "security", "--offline=true", place)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    return float(score[1]) if score else None  # before systemd 250 there is no --offline


def _chroot(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["chroot", root, *command], capture_output=True, text=True, check=False, timeout=120
    )
