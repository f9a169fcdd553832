"""``stoker fleet``: run the controller, and see the whole fleet's latency."""

import json
import signal
import threading
from typing import Annotated, Literal

import typer

from stoker_cli.events import log_to_stderr
from stoker_cli.fleet_options import AsJson, Config, open_fleet, warn_without_controller

app = typer.Typer(no_args_is_help=True, help="Run the controller; show the fleet.")


@app.command("run")
def run_fleet(
    config: Config = None,
    log_format: Annotated[
        Literal["console", "json"], typer.Option(help="How events are logged, to stderr.")
    ] = "console",
    *,
    parse_only: Annotated[
        bool,
        typer.Option("--parse-only", help="Only see whether this command line is understood."),
    ] = False,
) -> None:
    """Run the controller until it is told to stop (SIGTERM or Ctrl-C)."""
    if parse_only:
        return
    from stoker_fleet.controller import run_controller  # noqa: PLC0415  only this needs MQTT

    log_to_stderr(log_format)
    settings, store = open_fleet(config)
    store.close()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_controller(settings, stop)


@app.command()
def latency(config: Config = None, *, as_json: AsJson = False) -> None:
    """Show latency merged over all devices, by slot and release."""
    from stoker_cli.latency_chart import as_object, draw  # noqa: PLC0415
    from stoker_fleet.store.latency import merged_latency  # noqa: PLC0415

    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        merged = merged_latency(session, by_digest=False)
    if as_json:
        typer.echo(json.dumps([as_object(one) for one in merged]))
        return
    draw(merged, "the fleet")
