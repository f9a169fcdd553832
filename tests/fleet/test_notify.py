"""What the service manager hears of the controller, over a real socket from a real process."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_fleet.notify import ServiceManager
from support.fleet_site import FleetSite
from support.waiting import wait_until


@pytest.fixture
def systemd(short_tmp: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(short_tmp / "notify.sock"))
        listening.settimeout(20)
        yield listening


def heard(systemd: socket.socket) -> str:
    return systemd.recv(1000).decode()


def test_the_controller_is_ready_and_alive_whatever_becomes_of_the_broker(
    site: FleetSite, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready before the broker answers, says who it waits for, and ends in order."""
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    controller = site.start_controller()
    at = f"the broker at 127.0.0.1:{site.broker.port}"

    assert heard(systemd) == "READY=1"
    connected = f"WATCHDOG=1\nSTATUS=connected to {at}"
    wait_until(lambda: heard(systemd) == connected, what="it says that it is connected")
    site.broker.stop()
    waits = f"WATCHDOG=1\nSTATUS=waits for {at}"
    wait_until(lambda: heard(systemd) == waits, what="it says that it waits")
    controller.terminate()
    wait_until(lambda: heard(systemd) == "STOPPING=1", what="it says that it ends")
    assert controller.wait(20) == 0


def test_the_watchdog_is_fed_twice_as_often_as_asked(systemd: socket.socket) -> None:
    """Each turn of the loop may feed it; what is sent is what is due, or news."""
    now_s = [0.0]
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "4000000"}
    manager = ServiceManager(environment, lambda: now_s[0])

    for now_s[0], status in ((0, "a"), (1, "a"), (2, "a"), (2.5, "b"), (3, "b")):
        manager.alive(status)
    manager.stopping()

    sent = [heard(systemd).replace("WATCHDOG=1\nSTATUS=", "") for _ in range(4)]
    assert sent == ["a", "a", "b", "STOPPING=1"]


def test_without_a_service_manager_nothing_is_sent(systemd: socket.socket) -> None:
    """From a terminal the controller works the same."""
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": systemd.getsockname()}).ready()

    assert heard(systemd) == "READY=1"
