"""``stoker demo``: the whole of stoker on this machine, measured."""

import signal
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where everything is kept; made anew.")
    ] = Path(".stoker/demo"),
    device_count: Annotated[int, typer.Option(min=1, max=20, help="Devices to start.")] = 3,
    photos: Annotated[
        Path | None,
        typer.Option(help="Labelled photographs to certify on (see examples/photos).", exists=True),
    ] = None,
    rate_hz: Annotated[float, typer.Option(min=1, help="Requests a second of the load.")] = 20.0,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running in the end, and say how to play.")
    ] = False,
) -> None:
    """Build a real model, roll it out, break it in every way, and measure what happens.

    The status is 0 only if every promise held.
    """
    from stoker_cli.demo.run import run_demo  # noqa: PLC0415  imports onnx and more
    from stoker_cli.demo.show import Options  # noqa: PLC0415

    # SIGTERM ends us as Ctrl-C does: every process of ours is ended on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    photos = photos.resolve() if photos else None
    options = Options(device_count=device_count, photos=photos, rate_hz=rate_hz)
    if not run_demo(directory, options, keep=keep):
        raise typer.Exit(1)
