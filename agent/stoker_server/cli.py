"""``stoker-server``: serve the engines of one device."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end. Returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.parse_only:
        return 0
    # Only now: --help and --version answer without loading the server.
    import uvloop  # noqa: PLC0415

    from stoker_server import logs  # noqa: PLC0415
    from stoker_server.allocator import keep_body_memory  # noqa: PLC0415
    from stoker_server.app import serve  # noqa: PLC0415
    from stoker_server.settings import Settings  # noqa: PLC0415
    from stoker_server.sockets import AlreadyRunningError  # noqa: PLC0415

    keep_body_memory()
    logs.configure(arguments.log_format)
    settings = Settings(
        state_dir=arguments.state_dir.absolute(),
        run_dir=arguments.run_dir.absolute(),
        http=arguments.http,
        engine_command=_engine_command(arguments),
        socket_group=arguments.socket_group,
        max_queue=arguments.max_queue,
        receive_timeout_s=arguments.receive_timeout_s,
        run_timeout_s=arguments.run_timeout_s,
        drain_timeout_s=arguments.drain_timeout_s,
    )
    try:
        uvloop.run(serve(settings))
    except (AlreadyRunningError, OSError) as error:
        sys.stderr.write(f"stoker-server: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stoker-server", description=__doc__)
    parser.add_argument("--version", action="version", version=version("stoker"))
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/stoker"))
    parser.add_argument("--run-dir", type=Path, default=Path("/run/stoker"))
    parser.add_argument(
        "--http", type=_http, default=None, metavar="HOST:PORT|none", help="serve on TCP, too"
    )
    parser.add_argument("--engine-python", default=sys.executable, metavar="PATH")
    parser.add_argument(
        "--engine-command",
        default=os.environ.get("STOKER_ENGINE_COMMAND"),
        metavar="COMMAND",
        help="start engines with this instead of --engine-python (or $STOKER_ENGINE_COMMAND)",
    )
    parser.add_argument(
        "--socket-group", default="stoker-clients", help="may use the inference socket"
    )
    parser.add_argument("--max-queue", type=int, default=128, help="requests waiting per slot")
    parser.add_argument(
        "--receive-timeout-s", type=float, default=30.0, help="for the headers, then the body"
    )
    parser.add_argument("--run-timeout-s", type=float, default=60.0)
    parser.add_argument("--drain-timeout-s", type=float, default=10.0)
    parser.add_argument("--log-format", choices=("journal", "json", "console"), default="console")
    parser.add_argument(
        "--parse-only", action="store_true", help="only see whether this command line is understood"
    )
    return parser


def _engine_command(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.engine_command:
        return tuple(shlex.split(arguments.engine_command))
    return (arguments.engine_python, "-m", "stoker_engine")


def _http(text: str) -> tuple[str, int] | None:
    if text == "none":
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        message = f"{text!r} is not HOST:PORT or none"
        raise argparse.ArgumentTypeError(message)
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
