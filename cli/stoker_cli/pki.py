"""``stoker pki``: certificates for devices, broker and controller."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from stoker_cli.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Make certificates for devices and broker.")

Folder = Annotated[Path, typer.Option("--dir", help="Folder of authority and certificates.")]
Name = Annotated[str, typer.Argument(help="The device id, `controller` or `broker`.")]
DEFAULT: Final = Path("pki")
MAX_REQUEST_BYTES: Final = 64 * 1024


@app.command()
def init(
    folder: Folder = DEFAULT,
    host: Annotated[
        list[str] | None, typer.Option(help="Another name or address of the broker.")
    ] = None,
) -> None:
    """Make a certificate authority, and the broker's certificate."""
    from stoker_trust.pki import BROKER, CA, LOOPBACK, Authority  # noqa: PLC0415  --help should not pay for these

    authority = Authority(folder)
    new = authority.create(datetime.now(UTC), hosts=(*LOOPBACK, *(host or ())))
    typer.echo(f"{'Made' if new else 'Keeping'} {authority.certificate(CA)}")
    typer.echo(f"The broker's certificate: {authority.certificate(BROKER)}")
    typer.echo("Next: stoker pki issue controller; stoker pki issue DEVICE")


@app.command()
def issue(
    device: Name,
    folder: Folder = DEFAULT,
) -> None:
    """Make the key and certificate of a device: its id is the common name."""
    from stoker_trust.pki import Authority  # noqa: PLC0415

    authority = Authority(folder)
    authority.issue(_name(device), datetime.now(UTC))
    typer.echo(f"{authority.certificate(device)}\n{authority.key(device)}")


@app.command()
def sign(
    name: Name,
    request: Annotated[
        typer.FileBinaryRead, typer.Option(help="The signing request (PEM); `-` reads it.")
    ],
    folder: Folder = DEFAULT,
    host: Annotated[
        list[str] | None, typer.Option(help="For a broker: each of its names and addresses.")
    ] = None,
) -> None:
    """Certify a key that was made elsewhere; prints the certificate.

    NAME counts, whatever the request calls itself.
    """
    from stoker_trust.pki import Authority  # noqa: PLC0415  --help should not pay for these

    pem = request.read(MAX_REQUEST_BYTES)
    made = Authority(folder).sign(_name(name), pem, datetime.now(UTC), hosts=tuple(host or ()))
    typer.echo(made.decode(), nl=False)


@app.command()
def revoke(
    name: Name,
    folder: Folder = DEFAULT,
    *,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="All but the last one, after a rotation.")
    ] = False,
) -> None:
    """Revoke the certificates of a device. The broker has to get the list, and to drop it."""
    from stoker_trust.pki import Authority  # noqa: PLC0415  --help should not pay for these

    authority = Authority(folder)
    count = authority.revoke(_name(name), datetime.now(UTC), only_superseded=superseded)
    typer.echo(f"{count} newly revoked; the list for the broker: {authority.revocations}")


def _name(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  --help should not pay for these

    from stoker_contract.names import Slug  # noqa: PLC0415

    try:
        return TypeAdapter(Slug).validate_python(text)
    except ValidationError:
        msg = f"{text!r} can not be a device id: lower-case letters, digits, '.', '-' and '_'"
        raise CommandError(msg) from None
