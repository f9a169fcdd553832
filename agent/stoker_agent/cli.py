"""The agent of one device: updates its models, and keeps doing so whatever happens.

``run`` is what the service manager starts. The others work on the device itself, with the network
down, and most of them with the agent down, too.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stoker_agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from stoker_agent.config import Config

DEFAULT_CONFIG: Final = Path("/etc/stoker/agent.toml")
FAILURE: Final = 1
USAGE: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command is _run and arguments.parse_only:
        return 0
    # Only now: --help and --version answer without loading the agent.
    from stoker_agent.config import load_config  # noqa: PLC0415

    command: Callable[[Config, argparse.Namespace], int] = arguments.command
    try:
        config = load_config(arguments.config)
        if command not in (_run, _check):
            _act_as_owner_of(config.paths.state_dir)
        return command(config, arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command line talks to people
        return USAGE
    except AgentError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command line talks to people
        return FAILURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stoker-agent", description=__doc__)
    parser.add_argument("--version", action="version", version=version("stoker"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "update this device until told to end")
    run.add_argument("--with-server", action="store_true", help="start stoker-server as a child")
    run.add_argument("--log-format", choices=("journal", "json", "console"), default="json")
    run.add_argument("--debug", action="store_true", help="log more")
    run.add_argument(
        "--parse-only", action="store_true", help="only see whether this command line is understood"
    )
    status = _command(commands, "status", _status, "what this device runs and is doing")
    status.add_argument("--json", action="store_true", help="for machines")
    why = _command(commands, "why", _why, "what became of the last deployments, and why")
    why.add_argument("--limit", type=int, default=5, help="how many (default: 5)")
    why.add_argument("--json", action="store_true", help="for machines")
    _command(commands, "hold", _hold, "stop all updates, whatever the cloud wants")
    _command(commands, "release", _release, "allow updates again")
    _command(commands, "rollback", _rollback, "let the engine before serve again")
    _command(commands, "check", _check, "only read the configuration, and say what is wrong in it")
    doctor = _command(commands, "doctor", _doctor, "find what is wrong, and what to do about it")
    doctor.add_argument("--json", action="store_true", help="for machines")
    return parser


def _command(
    commands: Any,  # noqa: ANN401 - argparse has no public type for it
    name: str,
    run: Callable[["Config", argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="PATH")
    parser.set_defaults(command=run)
    return parser


def _run(config: "Config", arguments: argparse.Namespace) -> int:
    from stoker_agent.app.agent import run_agent  # noqa: PLC0415 - see main
    from stoker_agent.app.logs import configure_logs  # noqa: PLC0415 - see main

    configure_logs(arguments.log_format, debug=arguments.debug)
    run_agent(config, arguments.config.absolute(), with_server=arguments.with_server)
    return 0


def _status(config: "Config", arguments: argparse.Namespace) -> int:
    from stoker_agent.app import local  # noqa: PLC0415 - see main

    state = local.status(config)
    if arguments.json:
        _say(json.dumps(state, indent=2))
        return 0
    held = "; updates are HELD" if state["held"] else ""
    _say(f"{state['fleet']}/{state['device']}: generation {state['generation']}{held}")
    if state["server"] is None:
        _say("  the server does not answer; below is what it starts at its next boot")
    for name, slot in state["slots"].items():
        serving = slot["serving"] or slot["after_boot"] or "nothing"
        before = f", before it {slot['previous']}" if slot["previous"] else ""
        trouble = f"  DEGRADED: {slot['degraded']}" if slot["degraded"] else ""
        _say(f"  {name}: {serving}{before}{trouble}")
    if state["deployment"]:
        running = state["deployment"]
        _say(f"  {running['id']} is {running['phase']}, attempt {running['attempt']}")
    _say(f"  {state['outbox_depth']} messages wait for the broker")
    return 0


def _why(config: "Config", arguments: argparse.Namespace) -> int:
    from stoker_agent.app import local  # noqa: PLC0415 - see main

    deployments = local.history(config, arguments.limit)
    if arguments.json:
        _say(json.dumps(deployments, indent=2))
        return 0
    for found in deployments:
        releases = ", ".join(f"{slot}: {name}" for slot, name in found["releases"].items())
        end = found["outcome"] or f"is {found['phase']}"
        _say(f"{found['generation']}  {found['id']}  {releases}  {end}")
        if found["code"]:
            _say(f"    {found['stack']}")
            _say(f"    {found['detail']}")
    if not deployments:
        _say("no deployment yet")
    return 0


def _hold(config: "Config", _arguments: argparse.Namespace) -> int:
    _set_held(config, held=True)
    _say("updates are held; `stoker-agent release` allows them again")
    return 0


def _release(config: "Config", _arguments: argparse.Namespace) -> int:
    _set_held(config, held=False)
    _say("updates are allowed")
    return 0


def _set_held(config: "Config", *, held: bool) -> None:
    from stoker_agent.app import local  # noqa: PLC0415 - see main

    journal = local.open_journal(config)
    try:
        journal.set_held(held=held)
    finally:
        journal.close()


def _rollback(config: "Config", _arguments: argparse.Namespace) -> int:
    from stoker_agent.app import local  # noqa: PLC0415 - see main

    journal = local.open_journal(config)
    try:
        journal.request("rollback")
    finally:
        journal.close()
    _say("asked for; `stoker-agent status` shows when the agent has done it")
    return 0


def _check(_config: "Config", arguments: argparse.Namespace) -> int:
    _say(f"{arguments.config}: fine")
    return 0


def _doctor(config: "Config", arguments: argparse.Namespace) -> int:
    from stoker_agent.app.doctor import Health, examine  # noqa: PLC0415 - see main

    findings = examine(config)
    well = all(finding.health is not Health.BAD for finding in findings)
    if arguments.json:
        _say(json.dumps({"well": well, "findings": [asdict(one) for one in findings]}, indent=2))
        return 0 if well else FAILURE
    for finding in findings:
        _say(f"{finding.health.upper():<4} {finding.name}: {finding.found}")
        if finding.advice:
            _say(f"       {finding.advice}")
    return 0 if well else FAILURE


def _act_as_owner_of(folder: Path) -> None:
    """Do what root asks for as the service's user: what is written here must stay the agent's."""
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner = folder.stat()
    os.setgroups([owner.st_gid])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the command line talks to people


if __name__ == "__main__":
    sys.exit(main())
