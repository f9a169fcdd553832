"""The contract on Python 3.10, which JetPack 6 brings."""

import os
import subprocess

import pytest

from support.environments import ROOT, environment, python_3_10

REQUIREMENTS = (
    "pydantic>=2.9",
    "typing-extensions>=4.12",
    "pytest>=8.3",
    "pytest-timeout",
    "hypothesis>=6.115",
)


@pytest.mark.timeout(600)  # the first run installs the packages
def test_the_contract_holds_on_python_3_10() -> None:
    """All tests of the contract pass on the oldest Python that it is for."""
    python = python_3_10()
    if python is None:
        pytest.skip("there is no Python 3.10 with the venv module on this machine")
    interpreter = environment("python3.10", REQUIREMENTS, python)
    paths = os.pathsep.join((str(ROOT / "contract"), str(ROOT / "tests")))
    done = subprocess.run(
        [str(interpreter), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
