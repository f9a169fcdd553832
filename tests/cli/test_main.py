"""``stoker`` itself: finding commands, and ending them cleanly."""

import importlib

import pytest
import typer

from stoker_cli.commands import COMMANDS, Command
from stoker_cli.main import run


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_in_the_help_is_there(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command has its module, and answers ``--help``."""
    assert isinstance(importlib.import_module(command.module).app, typer.Typer)
    assert run([command.name, "--help"]) == 0
    assert f"stoker {command.name}" in capsys.readouterr().out


def test_a_mistyped_command_is_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest command is suggested, and the status says it was used wrongly."""
    assert run(["rolout", "watch"]) == 2
    assert "did you mean 'rollout'?" in capsys.readouterr().err


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """``stoker`` alone says what there is."""
    assert run([]) == 0
    out = capsys.readouterr().out
    assert all(command.name in out for command in COMMANDS)


def test_an_expected_failure_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure that the user can act on ends with a hint and no traceback."""
    assert run(["broker", "run", "--dir", "/nonexistent", "--tls"]) == 1
    err = capsys.readouterr().err
    assert "error: --tls needs --ca" in err
    assert "stoker pki" in err


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """``stoker --version`` names program and version."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("stoker ")
