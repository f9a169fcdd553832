"""The system that every node boots: Debian, made once by debootstrap and kept in a cache.

Nodes never write to it: each has a disk of its own on top.
"""

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Final

from e2e.cache import cached

SUITE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"
MIRROR_TIMEOUT_S: Final = 30
INIT: Final = "/sbin/e2e-init"

# What a device comes with (Python, SSH, openssl), what the roles would install from a mirror that
# a node can not reach, and what the stories need inside (faketime).
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo", "acl"),
    *("python3", "python3-venv", "python3-apt", "python3-packaging", "python3-systemd"),
    *("ca-certificates", "openssl", "iproute2", "iputils-ping", "procps", "rsync", "faketime"),
    *("mosquitto", "mosquitto-clients"),
)
_MASKED: Final = (
    *("getty.target", "systemd-udevd.service", "systemd-resolved.service"),
    *("systemd-firstboot.service", "e2scrub_all.timer", "fstrim.timer"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-timesyncd.service"),
)
# systemd-nspawn mounts the controllers of version 1 read-only; limits need them writable.
_INIT_SCRIPT: Final = """\
#!/bin/sh
for controller in /sys/fs/cgroup/*; do
  case $controller in */cpuset | */unified) continue ;; esac
  mountpoint -q "$controller" && mount -o remount,bind,rw "$controller"
done
exec /lib/systemd/systemd "$@"
"""


class NoMirrorError(Exception):
    """There is no system in the cache, and nobody to get one from."""


def image(suite: str = SUITE, packages: tuple[str, ...] = PACKAGES) -> Path:
    """The folder of a bootable system; it is made if it is not in the cache (about a minute)."""
    recipe = "\n".join((suite, *packages, *_MASKED, _INIT_SCRIPT))
    return cached(suite, recipe.encode(), lambda root: _make(root, suite, packages))


def _find_mirror(suite: str) -> None:
    release = f"{MIRROR}/dists/{suite}/InRelease"
    try:
        urllib.request.urlopen(release, timeout=MIRROR_TIMEOUT_S).close()  # noqa: S310  ours
    except OSError as error:
        msg = f"{MIRROR} does not answer: {error}"
        raise NoMirrorError(msg) from error


def _make(root: Path, suite: str, packages: tuple[str, ...]) -> None:
    _find_mirror(suite)
    done = subprocess.run(
        [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            suite,
            root,
            MIRROR,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"debootstrap {suite} failed:\n{(done.stdout + done.stderr)[-2000:]}"
        raise RuntimeError(msg)
    units = root / "etc/systemd/system"
    for unit in _MASKED:
        _link(units / unit, "/dev/null")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")
    # Who needs the broker enables it; the nodes are told apart by what their own disks hold.
    (units / "multi-user.target.wants/mosquitto.service").unlink(missing_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    init = root / INIT.lstrip("/")
    init.write_text(_INIT_SCRIPT)
    init.chmod(0o755)
    for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / rubbish)
        (root / rubbish / "partial").mkdir(parents=True)
    # A package that is missing is a mistake to see at once, not after minutes of retries.
    options = 'Acquire::Retries "0";\nAcquire::http::Timeout "3";\n'
    (root / "etc/apt/apt.conf.d/99no-mirror").write_text(options)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
