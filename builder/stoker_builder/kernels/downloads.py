"""Packages for ARM, fetched by this machine's apt and pip without installing anything.

apt gets a state of its own, so nothing of the machine's package management changes and nobody
has to be root. What signs these downloads is what signs all others of apt and pip.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.target import Arch

# Wheels say from which version of the C library on they run; Debian 12 has 2.36.
_LIBC_MINORS: Final = range(17, 37)
_OFFLINE: Final = (
    *("could not resolve", "could not connect", "temporary failure", "unable to connect"),
    *("failed to establish", "connection refused", "network is unreachable", "timed out"),
)
_LIMIT_S: Final = 900.0


def fetch_debian(scratch: Path, packages: Sequence[str], sources: Path | None) -> Sequence[Path]:
    """Have apt choose and verify packages as for an ARM machine on which nothing is installed.

    Args:
        scratch: a folder that does not exist yet.
        packages: what is wanted; what they depend on comes too.
        sources: a ``sources.list``; those of the machine when absent.

    Raises:
        BuildError: ``EMULATOR``.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # the user _apt could not write into this folder
        "APT::Update::Pre-Invoke": "",
        "APT::Update::Post-Invoke": "",
        "APT::Update::Post-Invoke-Success": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Dir::State": str(scratch / "state"),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch / "cache"),
    }
    if sources is not None:
        settings |= {"Dir::Etc::sourcelist": str(sources.resolve()), "Dir::Etc::sourceparts": "-"}
    apt = ["apt-get", "--quiet", "--assume-yes"]
    for key, value in settings.items():
        apt += ["-o", f"{key}={value}"]
    hint = "apt's sources have to carry arm64; name others with --sources"
    # without a network this succeeds, and says so
    updated = run_program([*apt, "update"], hint)
    fetch = ["install", "--download-only", "--no-install-recommends"]
    run_program([*apt, *fetch, *packages], hint, said_before=updated)
    return sorted((scratch / "cache/archives").glob("*.deb"))


def fetch_wheels(scratch: Path, versions: Mapping[str, str], python: str) -> Sequence[Path]:
    """Have pip fetch the wheels of packages for ARM, without what they depend on.

    Args:
        scratch: where they go.
        versions: of each package.
        python: ``3.11``, say.

    Raises:
        BuildError: ``EMULATOR``.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", f"--dest={scratch}"]
    command += [f"--platform=manylinux_2_{minor}_{Arch.AARCH64}" for minor in _LIBC_MINORS]
    command += [f"--platform=manylinux2014_{Arch.AARCH64}"]
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    hint = f"pip has to find wheels of {' and '.join(wanted)} for ARM and Python {python}"
    run_program([*command, *wanted], hint)
    return sorted(scratch.glob("*.whl"))


def run_program(
    command: Sequence[str],
    hint: str,
    *,
    environment: Mapping[str, str] | None = None,
    said_before: str = "",
) -> str:
    """Run a program to its end and return what it said, which is only of interest if it fails.

    Args:
        command: with arguments.
        hint: what to do when it fails, unless it is for want of a network.
        environment: of the process; this one's when absent.
        said_before: by another program that prepared for this one.

    Raises:
        BuildError: ``EMULATOR``; it failed, or did not end.
    """
    try:
        done = subprocess.run(  # noqa: S603 - programs of the system, on what they fetched
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_LIMIT_S,
            env={**(os.environ if environment is None else environment), "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        detail = f"{command[0]} did not end within {_LIMIT_S:.0f} s"
        raise BuildError(BuildCode.EMULATOR, detail, hint) from None
    if done.returncode == 0:
        return done.stdout
    offline = any(words in f"{said_before}{done.stdout}".lower() for words in _OFFLINE)
    raise BuildError(
        BuildCode.EMULATOR,
        f"{Path(command[0]).name} failed ({done.returncode}): {done.stdout.strip()[-800:]}",
        "check the network (proxies too), then run it again" if offline else hint,
    )
