"""Ways to hurt a device that are more than one command, each with its way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from e2e.devices import STATE, Device

DROP_INS: Final = "/etc/systemd/system/{unit}.d"
DROP_IN: Final = "zz-e2e-{name}.conf"
"""The last in the order of names is the one that counts."""
_FAKETIME: Final = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def add_drop_in(device: Device, unit: str, name: str, text: str) -> None:
    """Change a service for this run, over what the role set. It has to be restarted."""
    folder = DROP_INS.format(unit=unit)
    device.node.run("mkdir", "-p", folder)
    device.node.run("tee", f"{folder}/{DROP_IN.format(name=name)}", stdin=text)
    device.node.run("systemctl", "daemon-reload")


def remove_drop_in(device: Device, unit: str, name: str) -> None:
    """Undo :func:`add_drop_in`. The service has to be restarted."""
    device.node.run("rm", "-f", f"{DROP_INS.format(unit=unit)}/{DROP_IN.format(name=name)}")
    device.node.run("systemctl", "daemon-reload")


@contextmanager
def changed(device: Device, unit: str, setting: str) -> Iterator[None]:
    """Let a service run with another setting for a while. It is restarted twice."""
    add_drop_in(device, unit, "setting", f"[Service]\n{setting}\n")
    device.restart(unit)
    try:
        yield
    finally:
        remove_drop_in(device, unit, "setting")
        device.restart(unit)


@contextmanager
def full_disk(device: Device, *, left_mib: int = 0) -> Iterator[None]:
    """Let something else fill the disk of a device, to the last block if nothing is to be left."""
    told = device.node.run("df", "--output=avail", "--block-size=1", f"/{STATE}")
    # The last blocks go one by one: of these some are needed to note down where a file lies.
    length = int(told.split()[-1]) - max(left_mib, 4) * 1024**2
    device.node.run("fallocate", "--length", str(length), "/var/e2e-filling")
    if not left_mib:
        device.node.run("sh", "-c", "dd if=/dev/zero of=/var/e2e-rest bs=4k 2>/dev/null || true")
    try:
        yield
    finally:
        device.node.run("rm", "-f", "/var/e2e-filling", "/var/e2e-rest")


def set_clock(device: Device, unit: str, when: str) -> None:
    """Let a service believe that it is another time. The clock of the machine is left alone."""
    text = (
        f"[Service]\nEnvironment=LD_PRELOAD={_FAKETIME}\nEnvironment=DONT_FAKE_MONOTONIC=1\n"
        f'Environment="FAKETIME={when}"\n'
    )
    add_drop_in(device, unit, "clock", text)
