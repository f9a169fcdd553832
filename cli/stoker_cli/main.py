"""``stoker``: finds the command that is meant, and imports only that one.

``stoker --help`` is answered from data (:mod:`stoker_cli.commands`), so it needs neither the
command framework nor anything heavy. An error that carries a reason code ends the command with
that code and no traceback; what has no code is a bug of ours and keeps its traceback.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from stoker_cli.commands import COMMANDS, Command

if TYPE_CHECKING:
    import typer

PROGRAM: Final = "stoker"
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``stoker`` and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run ``stoker`` with ``arguments`` and return the exit status."""
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        sys.stdout.write(help_text(sys.stdout))
        return EXIT_OK
    if arguments[0] in {"--version", "-V"}:
        sys.stdout.write(f"{PROGRAM} {version()}\n")
        return EXIT_OK
    name, *rest = arguments
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        sys.stderr.write(f"{PROGRAM}: there is no command {name!r}{_suggestion(name)}\n")
        sys.stderr.write(f"`{PROGRAM} --help` lists them.\n")
        return EXIT_USAGE
    return _invoke(command, rest)


def version() -> str:
    """The version of the installed distribution."""
    from importlib import metadata  # noqa: PLC0415  --help should not pay for it

    return metadata.version(PROGRAM)


def help_text(stream: TextIO) -> str:
    """What ``stoker --help`` prints."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if _takes_colour(stream) else ("", "")
    width = max(len(command.name) for command in COMMANDS)
    lines = [
        f"{bold}Usage:{plain} {PROGRAM} COMMAND [ARGS]...",
        "",
        "Takes a trained model to a fleet of edge devices and keeps it serving there.",
        "",
        f"{bold}Commands:{plain}",
        *(f"  {bold}{command.name:<{width}}{plain}  {command.summary}" for command in COMMANDS),
        "",
        f"{bold}Options:{plain}",
        f"  {'--version':<{width}}  Print the version.",
        f"  {'--help':<{width}}  Print this. `{PROGRAM} COMMAND --help` says more.",
    ]
    return "\n".join(lines) + "\n"


def _takes_colour(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  only for a mistyped command

    close = get_close_matches(name, [command.name for command in COMMANDS], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _invoke(command: Command, arguments: list[str]) -> int:
    try:
        app = _load(command)
        app(args=arguments, prog_name=f"{PROGRAM} {command.name}")
    except SystemExit as end:
        return _status(end.code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        return _explain_missing(command, error)
    except Exception as error:
        if not _is_expected(error):
            raise
        explain(error)
        return EXIT_FAILED
    return EXIT_OK


def _load(command: Command) -> "typer.Typer":
    app: typer.Typer = importlib.import_module(command.module).app
    if command.group and app.registered_callback is None:
        # typer makes a group of one command into that command; a group stays a group here.
        app.callback()(_nothing)
    return app


def _nothing() -> None:
    """The callback of a group that has nothing to do before its command."""


def _status(code: Any) -> int:  # noqa: ANN401  SystemExit carries anything
    if code is None:
        return EXIT_OK
    if isinstance(code, int):
        return code
    sys.stderr.write(f"{code}\n")
    return EXIT_FAILED


def _is_expected(error: Exception) -> bool:
    return hasattr(error, "code") or hasattr(error, "hint") or isinstance(error, OSError)


def explain(error: Exception) -> None:
    """Say on standard error what happened, and what to do about it."""
    code = getattr(error, "code", None)
    detail = getattr(error, "detail", None) or str(error)
    bold, plain = ("\x1b[1;31m", "\x1b[0m") if _takes_colour(sys.stderr) else ("", "")
    sys.stderr.write(f"{bold}error{f' {code}' if code else ''}{plain}: {detail}\n")
    if hint := getattr(error, "hint", ""):
        sys.stderr.write(f"{hint}\n")
    if code:
        page = getattr(error, "page", "docs/reason-codes.md")
        sys.stderr.write(f"What it means and what to do: {page}, section {code}.\n")


def _explain_missing(command: Command, error: ModuleNotFoundError) -> int:
    if command.extra is None or (error.name or "").startswith("stoker_"):
        raise error
    sys.stderr.write(
        f"error: `{PROGRAM} {command.name}` needs {error.name}, which is not installed here.\n"
        f"Install it with: pip install '{PROGRAM}[{command.extra}]'\n"
    )
    return EXIT_FAILED


if __name__ == "__main__":
    main()
