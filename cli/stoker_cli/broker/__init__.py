"""``stoker broker``: an MQTT broker for development, on loopback."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from stoker_cli.broker.configuration import TlsFiles
from stoker_cli.broker.process import Broker
from stoker_cli.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Run an MQTT broker for development.")


@app.command("run")
def run_broker(  # noqa: PLR0913  one parameter is one option
    directory: Annotated[
        Path, typer.Option("--dir", help="Where its configuration, state and log are kept.")
    ],
    port: Annotated[int, typer.Option(help="Loopback port; 0 takes a free one.")] = 1883,
    *,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Ask for client certificates: a device may use only the topics of its own name.",
        ),
    ] = False,
    ca: Annotated[Path | None, typer.Option(help="Authority of all certificates.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="The broker's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="The broker's key.")] = None,
) -> None:
    """Run a broker on loopback until Ctrl-C: mosquitto, or one in Python where it is missing."""
    files = _tls_files(ca, certificate, key) if tls else None
    with Broker(directory, port=port, tls=files) as broker:
        if not broker.speaks_mqtt5:
            typer.echo("mosquitto is not installed: this broker speaks MQTT 3.1.1 only, no TLS.")
        typer.echo(f"{broker.program} listens on {broker.host}:{broker.port} (log: {directory})")
        # SIGTERM ends us as Ctrl-C does; leaving the block ends the broker.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            broker.wait()
        except KeyboardInterrupt:
            return
    msg = "the broker ended"
    raise CommandError(msg, hint=f"Its log is in {directory}.")


def _tls_files(ca: Path | None, certificate: Path | None, key: Path | None) -> TlsFiles:
    if ca is None or certificate is None or key is None:
        msg = "--tls needs --ca, --certificate and --key"
        raise CommandError(
            msg,
            hint="`stoker pki` makes an authority and a certificate for the broker.",
        )
    for path in (ca, certificate, key):
        if not path.is_file():
            msg = f"there is no file {path}"
            raise CommandError(msg)
    return TlsFiles(ca.resolve(), certificate.resolve(), key.resolve())
