"""``stoker device``: what devices said of themselves."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stoker_cli.fleet_options import (
    AsJson,
    Config,
    open_fleet,
    plain,
    warn_without_controller,
)
from stoker_cli.printable import printable

if TYPE_CHECKING:
    from stoker_contract.reported import Reported
    from stoker_fleet.store.devices import DeviceView
    from stoker_fleet.store.rollouts import Deployment

app = typer.Typer(no_args_is_help=True, help="Show devices and their latency.")

Name = Annotated[str, typer.Argument(metavar="DEVICE", help="The device id.")]


@app.command("list")
def list_devices(config: Config = None, *, as_json: AsJson = False) -> None:
    """List the devices, and what each serves."""
    from stoker_fleet.store.devices import all_devices  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        views = all_devices(session)
    if as_json:
        typer.echo(json.dumps([_as_object(view) for view in views]))
        return
    if not views:
        _say("No device is known yet. One appears here once its agent has connected,")
        _say("while the controller runs (stoker fleet run).")
    for view in views:
        presence = "online" if view.online else "offline"
        _say(f"{view.device:<20} {presence:<8} {_summary(view.reported)}")


@app.command()
def show(device: Name, config: Config = None, *, as_json: AsJson = False) -> None:
    """Show one device: profile, slots, phase and its last deployments."""
    from stoker_fleet.store.devices import one_device  # noqa: PLC0415
    from stoker_fleet.store.rollouts import deployments  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        view = one_device(session, device)
        past = deployments(session, device)
    if as_json:
        typer.echo(json.dumps({**_as_object(view), "deployments": [_deployment(d) for d in past]}))
        return
    _say(f"{view.device}: {'online' if view.online else 'offline'}")
    _say(f"  said so {plain(view.presence_at)}, reported {plain(view.reported_at)} UTC")
    if view.reported is not None:
        _print_reported(view.reported)
    if past:
        _say("  deployments, newest first:")
    for deployment in past:
        words = deployment.outcome or deployment.phase or "notified"
        code = f" {deployment.code}" if deployment.code else ""
        detail = f": {deployment.detail}" if deployment.detail else ""
        _say(
            f"    {deployment.generation:>4} {deployment.rollout_id:<12} {deployment.release}"
            f" → {deployment.slot}  {words}{code}{detail}"
        )


@app.command()
def forget(
    device: Name,
    config: Config = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also while it is online.")] = False,
) -> None:
    """Forget a device that is gone for good: all that is stored, and what the broker retains.

    One that still lives comes back as a new device.
    """
    from stoker_fleet.store.devices import forget as forget_device  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        forget_device(session, device, even_online=force)
    _say(f"Forgot {device}. Revoke its certificate, if it should not come back.")


@app.command()
def latency(
    device: Name,
    config: Config = None,
    slot: Annotated[str | None, typer.Option(help="Only this slot.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Draw the latency of a device, by slot and artifact."""
    from stoker_cli.latency_chart import as_object, draw  # noqa: PLC0415
    from stoker_fleet.store.devices import one_device  # noqa: PLC0415
    from stoker_fleet.store.latency import merged_latency  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        one_device(session, device)
        merged = merged_latency(session, device=device, slot=slot)
    if as_json:
        typer.echo(json.dumps([as_object(one) for one in merged]))
        return
    draw(merged, device)


@app.command()
def rebuilds(config: Config = None, *, as_json: AsJson = False) -> None:
    """List the builds that devices wait for, after an upgrade of their TensorRT."""
    from dataclasses import asdict  # noqa: PLC0415

    from stoker_fleet.store.rebuilds import wanted_rebuilds  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        wanted = wanted_rebuilds(session)
    if as_json:
        typer.echo(json.dumps([asdict(rebuild) for rebuild in wanted]))
        return
    if not wanted:
        _say("No device waits for a build.")
    for rebuild in wanted:
        hardware = " ".join(f"{k}={v}" for k, v in asdict(rebuild.hardware).items() if v)
        _say(f"{rebuild.release}  for {hardware}")
        _say(f"  {len(rebuild.devices)} waiting since {plain(rebuild.asked_at)} UTC:")
        _say(f"  {', '.join(rebuild.devices)}; {rebuild.detail}")


def _say(line: str) -> None:
    typer.echo(printable(line))


def _as_object(view: "DeviceView") -> dict[str, Any]:
    return {
        "device": view.device,
        "online": view.online,
        "presence_at": view.presence_at,
        "reported_at": view.reported_at,
        "reported": view.reported.to_object() if view.reported else None,
    }


def _summary(reported: "Reported | None") -> str:
    if reported is None:
        return "has not reported yet"
    slots = [
        f"{name}: {slot.release or 'nothing'}{'' if slot.ready else ' (not ready)'}"
        f"{' DEGRADED' if slot.degraded else ''}"
        for name, slot in reported.slots.items()
    ]
    labels = " ".join(f"{key}={value}" for key, value in reported.profile.labels.items())
    words = [reported.profile.arch, labels, "; ".join(slots) or "no slots", str(reported.phase)]
    return "  ".join(word for word in words if word) + ("  HELD" if reported.held else "")


def _print_reported(reported: "Reported") -> None:
    profile = reported.profile
    runtimes = ", ".join(f"{name} {version}" for name, version in profile.runtimes.items())
    labels = " ".join(f"{key}={value}" for key, value in profile.labels.items())
    _say(f"  {profile.arch}, {profile.cores} cores, {profile.cpu_model or 'unknown CPU'}")
    _say(f"  runtimes: {runtimes or 'none'}; labels: {labels or 'none'}")
    free = f"{reported.disk.free_bytes / 1e9:.1f} of {reported.disk.total_bytes / 1e9:.1f} GB"
    held = ", held on the device" if reported.held else ""
    _say(f"  phase {reported.phase}, generation {reported.observed_generation}{held}")
    for refusal in reported.refusals:
        what = (
            f"generation {refusal.generation}"
            if refusal.generation is not None
            else f"an unsigned document {refusal.sha256[:12]}"
        )
        _say(f"  does not take {what} since {refusal.since}: {refusal.code}: {refusal.detail}")
    _say(f"  disk free {free}, {reported.outbox_depth} events not sent yet")
    for name, slot in reported.slots.items():
        state = "degraded" if slot.degraded else "ready" if slot.ready else "not ready"
        why = f" {slot.reason}: {slot.detail}" if slot.reason else ""
        active = f"{slot.release} ({slot.active[:12]})" if slot.active else "nothing"
        _say(f"  slot {name}: {active}, {state}{why}")
        if slot.previous_release:
            _say(f"    before: {slot.previous_release}")


def _deployment(deployment: "Deployment") -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415

    return {**asdict(deployment), "measured": deployment.measured.to_object()}
