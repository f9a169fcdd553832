"""Latency of the whole fleet, merged exactly from what each device measured."""

import json
from typing import Any, Final

from stoker_cli.demo.lab import wait_for
from stoker_cli.demo.show import MODEL, Show
from stoker_cli.demo.traffic import Frames, Traffic
from stoker_cli.demo.updates import FIRST, SECOND

_REQUESTS: Final = 20
_RATE_HZ: Final = 10.0


def show_fleet_latency(show: Show, frames: Frames) -> None:
    """A little traffic on every device, then one picture of all of them."""
    show.narrator.step("Latency of the whole fleet")
    others = [device for device in show.lab.devices.values() if device is not show.first]
    loads = [Traffic(show.lab, device, frames, rate_hz=_RATE_HZ) for device in others]
    for load in loads:
        load.process.start()
    with show.narrator.waiting("a little traffic on the other devices"):
        for load in loads:
            wait_for(
                "enough answers",
                lambda load=load: len(load.answers()) >= _REQUESTS,  # type: ignore[misc]
                timeout_s=30,
            )
    for load in loads:
        load.process.stop()
    with show.narrator.waiting("waiting for the next telemetry"):
        wait_for("telemetry of every device", lambda: _told(show), timeout_s=60)
    show.stoker("fleet", "latency", show=True)
    merged = _latency(show)
    requests = sum(one["requests"] for one in merged)
    releases = {one["release"] for one in merged}
    show.promise(
        "the fleet knows the latency of all its devices, by release",
        f"{requests} requests of {len(show.lab.devices)} devices, {len(releases)} releases",
        held={f"{MODEL}/{FIRST}", f"{MODEL}/{SECOND}"} <= releases,
    )


def _latency(show: Show) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(show.lab.stoker("fleet", "latency", "--json"))
    return told


def _told(show: Show) -> bool:
    names = show.lab.devices
    return all(json.loads(show.lab.stoker("device", "latency", name, "--json")) for name in names)
