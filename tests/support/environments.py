"""Virtual environments with less in them than ours, made once and kept in ``.env-cache``."""

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".env-cache"
TENSORRT_RTX = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
BUILDS_PLANS = (
    *("celery[redis]>=5.5", "numpy>=1.26", "psutil>=6", "pydantic>=2.9", "structlog>=24.4"),
    *("tomli>=2", "typing-extensions>=4.12", "urllib3>=2.2"),
)
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
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes share the tests
        if not (folder / "complete").exists():
            _make(folder, requirements, python)
            (folder / "complete").touch()
    return interpreter


def _make(folder: Path, requirements: Sequence[str], python: str) -> None:
    """With our own pip from outside: what is not installed needs no time."""
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    into = ["--python", str(folder), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, *into, *requirements], check=True, cwd=ROOT)


def plan_builder(python: str) -> Path:
    """The interpreter of an environment that compiles plans as a worker does: without onnx."""
    pinned = [f"{name}=={metadata.version(name)}" for name in TENSORRT_RTX]
    return environment("plan-builder", [*BUILDS_PLANS, *pinned], python)


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
