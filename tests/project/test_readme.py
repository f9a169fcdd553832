"""The pages: what they tell people to type exists."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from stoker_cli.commands import COMMANDS
from support.environments import ROOT

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "ansible/README.md",
    "docs/building.md",
    "docs/operations.md",
    "examples/digits/README.md",
    "examples/photos/README.md",
)
SHELL_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<EOF\n.*?\nEOF\n", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
PROGRAMS = ("stoker", "stoker-agent", "stoker-server", "stoker-engine")
GROUPS = {command.name for command in COMMANDS if command.group}


def commands() -> list[tuple[str, ...]]:
    found = []
    for page in PAGES:
        for block in SHELL_BLOCK.findall((ROOT / page).read_text()):
            joined = HERE_DOCUMENT.sub("\n", block).replace("\\\n", " ")
            lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
            found += [tuple(line) for line in lines if line]
    return found


OURS = sorted({command for command in commands() if command[0] in PROGRAMS})


@cache
def help_of(program: tuple[str, ...]) -> str:
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / program[0]), *program[1:], "--help"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", OURS, ids=" ".join)
def test_every_command_in_the_pages_exists(command: tuple[str, ...]) -> None:
    """Each command line of ours names a command, and only options that it has."""
    grouped = command[0] == "stoker-agent" or command[1] in GROUPS
    program = command[: 3 if command[0] == "stoker" and grouped else 2]
    text = help_of(program)
    options = {word.partition("=")[0] for word in command[len(program) :] if word[:2] == "--"}
    assert not {option for option in options if option not in text}


def test_the_pages_show_commands() -> None:
    """The pattern above finds what it looks for."""
    assert ("stoker", "rollout", "watch") in OURS


@pytest.mark.parametrize("script", ["demo", "test", "lint", "setup", "schema"])
def test_the_scripts_that_the_pages_name_are_there(script: str) -> None:
    """Scripts are programs, and somebody tells people about them."""
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    pages = "".join((ROOT / page).read_text() for page in PAGES)
    assert f"scripts/{script}" in pages


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """No link to a file that is gone."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_decisions_are_numbered_without_gaps() -> None:
    """``docs/adr`` reads from the first to the last, and each says its status."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    assert all("Status: " in record.read_text() for record in records)
