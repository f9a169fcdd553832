"""Virtual environments with less in them than ours, made once and kept in ``.env-cache``."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".env-cache"
CANDIDATES = ("python3.10", *Path("~/.pyenv/versions").expanduser().glob("3.10.*/bin/python"))


def environment(name: str, requirements: Sequence[str], python: str = sys.executable) -> Path:
    """The interpreter of an environment that holds ``requirements`` and nothing else."""
    version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True)
    # An editable installation of ours depends on pyproject; its place is part of what was made.
    content = "\n".join(
        [version.stdout, str(ROOT), *requirements, (ROOT / "pyproject.toml").read_text()]
    )
    folder = CACHE / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    interpreter = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        CACHE.mkdir(exist_ok=True)
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *requirements], check=True, cwd=ROOT)
        complete.touch()
    return interpreter


def python_3_10() -> str | None:
    """The Python 3.10 of this machine that can make environments, if there is one."""
    check = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))"
    for candidate in map(str, CANDIDATES):
        try:
            done = subprocess.run([candidate, "-c", check], check=False, capture_output=True)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return candidate
    return None
