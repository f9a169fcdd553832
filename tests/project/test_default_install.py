"""What a device installs: everything it runs is there, and nothing that it must not need."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.environments import ROOT, environment

DEVICE_PACKAGES = (
    "stoker_contract",
    "stoker_agent",
    "stoker_server",
    "stoker_engine",
    "stoker_client",
)
NEVER_ON_A_DEVICE = ("torch", "onnx", "onnxruntime", "openvino", "sqlalchemy", "amqtt")
HEAVY = ("torch", "onnx", "onnxruntime", "tuf", "rich", "typer", "pydantic", "numpy")

pytestmark = pytest.mark.timeout(600)  # the first run installs the packages

# A backend of the engine is imported once its runtime was found to be installed.
IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys
for missing in {missing!r}:
    assert importlib.util.find_spec(missing) is None, missing + " is installed here"
def broken(name):
    raise RuntimeError("can not import " + name)
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=broken):
    if not module.name.endswith(("__main__", "_backend")):
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def default_install() -> Path:
    """The interpreter of an environment made with ``pip install stoker``, no extras."""
    return environment("default", ["--editable", "."])


@pytest.mark.parametrize("package", DEVICE_PACKAGES)
def test_every_device_module_imports_without_extras(default_install: Path, package: str) -> None:
    """No device module needs torch, onnx or a runtime to be imported."""
    program = IMPORT_ALL.format(missing=NEVER_ON_A_DEVICE, package=package)
    subprocess.run([str(default_install), "-c", program], check=True, cwd=ROOT / "docs")


@pytest.mark.parametrize("program", ["stoker", "stoker-agent", "stoker-server", "stoker-engine"])
def test_every_program_answers_help_without_extras(default_install: Path, program: str) -> None:
    """``--help`` needs no more than the default installation."""
    command = [str(default_install.parent / program), "--help"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_a_missing_extra_is_named(default_install: Path) -> None:
    """A command that needs an extra says which to install, without a traceback."""
    command = [str(default_install.parent / "stoker"), "key", "status"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT / "docs")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """``stoker --help`` is answered from data, so it is quick whatever is installed."""
    program = (
        "import sys; from stoker_cli.main import run; run(['--help']);"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules];"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
