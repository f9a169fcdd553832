"""``stoker target``: what a release can be built for."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stoker_cli.errors import CommandError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def target() -> None:
    """List what a release can be built for, and show one to begin your own with."""


@app.command("list")
def list_targets() -> None:
    """List the targets that come with stoker: processors first, then GPUs."""
    from rich.console import Console  # noqa: PLC0415  --help should not pay for it
    from rich.table import Table  # noqa: PLC0415

    from stoker_builder.targets import load_target, target_names  # noqa: PLC0415
    from stoker_builder.tensorrt.targets import plan_targets  # noqa: PLC0415

    table = Table("target", "a device has", "tried in", box=None)
    for name in target_names():
        found = load_target(name)
        table.add_row(name, ", ".join((found.arch, *found.isa)), ", ".join(found.runtimes))
    for name, plan in plan_targets().items():
        wanted = plan.target
        parts = (wanted.arch, f"SM {wanted.gpu_sm}", wanted.module, f"TensorRT {wanted.tensorrt}")
        needs = ", ".join(part for part in parts if part and not part.endswith(" None"))
        table.add_row(name, needs, plan.runtime)
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="of a processor's target")]) -> None:
    """Print the file of a target, to change it and to give it to ``stoker build --targets``."""
    from stoker_builder.targets import source_of  # noqa: PLC0415  --help should not pay for it

    sys.stdout.write(source_of(name))


@app.command()
def emulate(
    arch: Annotated[str, typer.Argument(help="aarch64")],
    sources: Annotated[
        Path | None,
        typer.Option(help="a sources.list with packages for arm64, instead of the machine's own"),
    ] = None,
) -> None:
    """Fetch what it takes to run artifacts for another architecture here: 60 MB, once."""
    from stoker_builder.kernels.sysroot import make_sysroot  # noqa: PLC0415  as above
    from stoker_contract.target import Arch  # noqa: PLC0415

    if arch != Arch.AARCH64:
        detail = f"{arch} can not be emulated"
        raise CommandError(detail, hint="there is: aarch64")
    made = make_sysroot(sources=sources, tell=typer.echo)
    typer.echo(f"{arch} is emulated from now on, with {made.folder}")
