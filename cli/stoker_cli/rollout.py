"""``stoker rollout``: give a release to devices, and watch what becomes of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker_cli.errors import CommandError
from stoker_cli.fleet_options import AsJson, Config, open_fleet, plain

if TYPE_CHECKING:
    from stoker_fleet.core.assignment import RolloutPlan

app = typer.Typer(no_args_is_help=True, help="Roll a release out and watch it.")

Watched = Annotated[str | None, typer.Argument(help="Its id; the last one without.")]
_GATES = "Gates before the swap"
_PROBATION = "Probation on live traffic"


@app.command()
def create(  # noqa: PLR0913, PLR0917  one parameter is one option
    release: Annotated[str, typer.Argument(help="MODEL/VERSION, as it was published.")],
    to: Annotated[str, typer.Option("--to", help="all, edge-1,edge-2 or site=berlin,arch=x86_64")],
    slot: Annotated[str, typer.Option(help="The slot that is to serve it.")],
    config: Config = None,
    p99_ms: Annotated[
        float | None, typer.Option(min=0, help="Candidate's p99.", rich_help_panel=_GATES)
    ] = None,
    max_p99_ratio: Annotated[
        float | None,
        typer.Option(min=0, help="Candidate's p99 over the active one's.", rich_help_panel=_GATES),
    ] = None,
    min_golden_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Default: what the release says.", rich_help_panel=_GATES),
    ] = None,
    latency_samples: Annotated[
        int, typer.Option(min=1, help="Measured of each engine.", rich_help_panel=_GATES)
    ] = 300,
    probation_s: Annotated[
        float, typer.Option(min=0, help="How long.", rich_help_panel=_PROBATION)
    ] = 60.0,
    probation_min_samples: Annotated[
        int,
        typer.Option(
            min=1,
            help="Fewer requests: committed with low confidence.",
            rich_help_panel=_PROBATION,
        ),
    ] = 100,
    probation_p99_ms: Annotated[
        float | None, typer.Option(min=0, help="p99 since the swap.", rich_help_panel=_PROBATION)
    ] = None,
    probation_max_p99_ratio: Annotated[
        float | None,
        typer.Option(min=0, help="p99 since over before the swap.", rich_help_panel=_PROBATION),
    ] = None,
    probation_max_error_rate: Annotated[
        float,
        typer.Option(min=0, max=1, help="Failed over all requests.", rich_help_panel=_PROBATION),
    ] = 0.0,
    deadline_s: Annotated[float, typer.Option(min=1, help="For the whole deployment.")] = 3600.0,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also where it is remembered as bad.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask that devices serve a release. The controller signs and publishes it to each."""
    from pydantic import ValidationError  # noqa: PLC0415  --help should not pay for these

    from stoker_contract.desired import Probation  # noqa: PLC0415
    from stoker_fleet.core.assignment import RolloutPlan  # noqa: PLC0415

    try:
        plan = RolloutPlan(
            p99_ms=p99_ms,
            max_p99_ratio=max_p99_ratio,
            min_golden_score=min_golden_score,
            latency_samples=latency_samples,
            probation=Probation(
                duration_s=probation_s,
                min_samples=probation_min_samples,
                max_error_rate=probation_max_error_rate,
                p99_ms=probation_p99_ms,
                max_p99_ratio_vs_active=probation_max_p99_ratio,
            ),
            deadline_s=deadline_s,
            force=force,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        msg = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CommandError(msg) from None
    _create(config, as_json=as_json, release=release, selector=to, slot=slot, plan=plan)


@app.command()
def watch(
    rollout: Watched = None,
    config: Config = None,
    timeout_s: Annotated[
        float | None, typer.Option(min=0, help="Give up after this long, with status 3.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout until every device is final: status 0 if all are well, else 1."""
    from stoker_cli.rollout_view import watch_rollout  # noqa: PLC0415

    settings, store = open_fleet(config)
    status = watch_rollout(settings, store, rollout, timeout_s=timeout_s, as_json=as_json)
    raise typer.Exit(status)


@app.command()
def cancel(rollout: Watched = None, config: Config = None) -> None:
    """Stop a rollout: devices that have not finished it go back to what they were asked before.

    A device that watches the new release on live traffic gives its verdict first.
    """
    from stoker_fleet.store import rollouts  # noqa: PLC0415

    _, store = open_fleet(config)
    with store.transaction() as session:
        view = rollouts.cancel(session, rollout, datetime.now(UTC))
    done = sum(device.final for device in view.devices)
    typer.echo(f"Canceled {view.rollout_id}: {done} of {len(view.devices)} devices were done.")


@app.command("list")
def list_rollouts(config: Config = None, *, as_json: AsJson = False) -> None:
    """List the last rollouts, newest first."""
    from stoker_cli.rollout_view import as_object  # noqa: PLC0415
    from stoker_fleet.core.rollout import measure  # noqa: PLC0415
    from stoker_fleet.store import rollouts  # noqa: PLC0415

    _, store = open_fleet(config)
    with store.transaction() as session:
        views = rollouts.recent(session)
    if as_json:
        typer.echo(json.dumps([as_object(view) for view in views]))
        return
    for view in views:
        progress = measure(view.devices)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in progress.outcomes.items())
        line = f"{view.rollout_id:<12} {plain(view.created_at)}  {view.release} → {view.slot}"
        typer.echo(f"{line}  {view.state}, {progress.final}/{progress.targeted} final  {outcomes}")
    if not views:
        typer.echo("There is no rollout yet: stoker rollout create MODEL/VERSION --to all --slot …")


def _create(  # noqa: PLR0913  what the command was given
    config: Path | None,
    *,
    as_json: bool,
    release: str,
    selector: str,
    slot: str,
    plan: "RolloutPlan",
) -> None:
    from dataclasses import asdict  # noqa: PLC0415

    from stoker_fleet.controller import catalogue  # noqa: PLC0415
    from stoker_fleet.lock import is_controller_running  # noqa: PLC0415
    from stoker_fleet.requests import request_rollout  # noqa: PLC0415

    settings, store = open_fleet(config)
    with store.transaction() as session:
        request = request_rollout(
            session,
            catalogue(settings, "cli"),
            release=release,
            slot=slot,
            selector=selector,
            plan=plan,
            now=datetime.now(UTC),
        )
    running = is_controller_running(settings.database)
    if as_json:
        typer.echo(json.dumps({**asdict(request), "controller_running": running}))
        return
    typer.echo(f"Rollout {request.rollout_id}: {release} → slot {slot}")
    for target in request.targets:
        what = (
            f"{target.artifact}, {target.length / 1e6:.1f} MB"
            if target.artifact
            else (f"skipped: {target.refusal}")
        )
        typer.echo(f"  {target.device:<20} {what}{'' if target.online else ' (offline now)'}")
    if not running:
        typer.echo("No controller is running, so nothing is sent yet. Start it: stoker fleet run")
    typer.echo(f"Next: stoker rollout watch {request.rollout_id}")
