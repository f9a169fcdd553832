"""``stoker builds``: the service that has plans built on other machines."""

import secrets
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker_cli.build_service import (
    DEFAULT_TOKEN,
    DEFAULT_URL,
    AsJson,
    Builds,
    Ca,
    TokenFile,
    open_service,
)
from stoker_cli.errors import CommandError
from stoker_cli.events import log_to_stderr
from stoker_cli.fleet_options import Config
from stoker_cli.printable import printable

if TYPE_CHECKING:
    from stoker_builder.workers.documents import JobView, WorkerView

app = typer.Typer(no_args_is_help=True, help="Have plans built on other machines.")

_Pem = typer.Option(help="PEM file; needed to listen beyond this machine.")


@app.command()
def serve(  # noqa: PLR0913  one parameter per option
    *,
    folder: Annotated[Path, typer.Option(help="Jobs, results and bytes.")] = Path("builds"),
    broker: Annotated[
        str, typer.Option(help="URL of the broker that wakes workers.")
    ] = "redis://127.0.0.1:6379/0",
    token_file: TokenFile = DEFAULT_TOKEN,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8090,
    certificate: Annotated[Path | None, _Pem] = None,
    key: Annotated[Path | None, _Pem] = None,
) -> None:
    """Take jobs, wake workers and keep what they build, until SIGTERM or Ctrl-C."""
    from stoker_builder.workers.client import read_token  # noqa: PLC0415  --help should not pay for these
    from stoker_builder.workers.service import Tls  # noqa: PLC0415
    from stoker_builder.workers.serving import ServiceSettings, serve_builds  # noqa: PLC0415

    if (certificate is None) != (key is None):
        msg = "a certificate has a key"
        raise CommandError(msg, hint="give both --certificate and --key, or none")
    if not token_file.exists():
        _make_token(token_file)
    tls = Tls(certificate, key) if certificate and key else None
    settings = ServiceSettings(folder, broker, read_token(token_file), host, port, tls)
    settings.check()  # before anything of this process is changed
    log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve_builds(settings, stop, lambda url: typer.echo(f"Serving {folder} on {url}"))


@app.command("list")
def list_builds(
    builds: Builds = DEFAULT_URL,
    token_file: TokenFile = DEFAULT_TOKEN,
    ca: Ca = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the last jobs, and the workers."""
    import json  # noqa: PLC0415

    service = open_service(builds, token_file, ca)
    jobs, workers = service.jobs(), service.workers()
    if as_json:
        typer.echo(json.dumps({**jobs.to_object(), **workers.to_object()}))
        return
    for view in jobs.jobs:
        _say(f"{view.id}  {view.state:<9}  {view.job.hardware_class:<24} {_words(view)}")
    if not jobs.jobs:
        _say("No job yet: stoker build --targets orin-nano-8gb-jp62 --builds URL ...")
    _say("Workers:" if workers.workers else "No worker was heard of yet: stoker worker")
    for worker in workers.workers:
        _say(_worker(worker))


@app.command()
def cancel(
    job: Annotated[str, typer.Argument(help="Its id.")],
    builds: Builds = DEFAULT_URL,
    token_file: TokenFile = DEFAULT_TOKEN,
    ca: Ca = None,
) -> None:
    """End a job, and with it all builds that wait for it."""
    view = open_service(builds, token_file, ca).cancel(job)
    _say(f"{view.id} is {view.state}.")


@app.command()
def rebuild(
    *,
    config: Config = None,
    builds: Builds = DEFAULT_URL,
    token_file: TokenFile = DEFAULT_TOKEN,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Ask for the plans that devices wait for, after an upgrade of their TensorRT.

    Asking again is no harm: what is asked for or built already is the answer.
    """
    import json  # noqa: PLC0415

    from stoker_cli.rebuilds import as_object, ask_again  # noqa: PLC0415  --help should not pay for it

    asked = ask_again(config, open_service(builds, token_file, ca))
    if as_json:
        typer.echo(json.dumps([as_object(one) for one in asked]))
        return
    if not asked:
        _say("No device waits for a build.")
    for one in asked:
        _say(f"{one.wanted.release}: {len(one.wanted.devices)} waiting")
        if one.job is None:
            _say(f"  {one.why}")
        else:
            _say(f"  {one.job.id}  {one.job.state}  {one.job.job.hardware_class} {_words(one.job)}")


def _make_token(path: Path) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(secrets.token_urlsafe(32) + "\n")
    typer.echo(f"Made a token in {path}: workers and builds need it.")


def _words(view: "JobView") -> str:
    if view.outcome is not None and view.outcome.code is not None:
        return f"{view.outcome.code}: {view.outcome.detail}"
    if view.state == "waiting":
        seen = f"{view.workers} seen lately" if view.workers else "none seen"
        return f"for a worker of its class ({seen})"
    if view.from_cache:
        return "was built before"
    again = f", attempt {view.attempts}" if view.attempts > 1 else ""
    return f"by {view.worker}{again}" if view.worker else ""


def _worker(view: "WorkerView") -> str:
    worker, software = view.worker, view.worker.software
    versions = {
        "L4T": software.l4t,
        "TensorRT": software.tensorrt,
        "TensorRT-RTX": software.tensorrt_rtx,
        "power": software.power_mode,
    }
    what = [software.module or worker.cpu_model or str(software.arch)]
    what += [f"{name} {text}" for name, text in versions.items() if text]
    heard = "now" if view.silent_s < 60 else f"{view.silent_s / 60:.0f} min ago"  # noqa: PLR2004
    return f"  {worker.name:<20} {heard:<12} {', '.join(what)}; for {' '.join(worker.classes)}"


def _say(line: str) -> None:
    typer.echo(printable(line))
