"""Loading what a user names on the command line: ``package.module:function``."""

import contextlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from stoker_builder.errors import BuildCode, BuildError

_FORMS = "write package.module:function or path/to/file.py:function"


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A PyTorch model by name, so that a child process can make it again."""

    factory: str
    weights: Path | None


def load_entry(entry: str, code: BuildCode) -> Callable[..., object]:
    """Import the function that ``entry`` names. Importing runs its module.

    A module is looked for in the working directory too, and the folder of a file is
    importable while the build lasts, as it is when Python runs that file.

    Raises:
        BuildError: ``code``, when there is no such module, file or function, or when
            importing it fails.
    """
    module_name, separator, attribute = entry.rpartition(":")
    if not separator or not module_name or not attribute:
        raise BuildError(code, f"{entry!r} names no function", _FORMS)
    module = _import(module_name, code)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise BuildError(code, f"{module_name} has no function {attribute!r}", _FORMS)
    return function  # type: ignore[no-any-return]  # callable() narrows to nothing more


def call(function: Callable[..., object], entry: str, code: BuildCode, **keywords: str) -> object:
    """Call a function of the user. What it prints is not part of our output.

    Raises:
        BuildError: ``code``, with what the function raised.
    """
    try:
        with quiet():
            return function(**keywords)
    except Exception as error:  # not our code: whatever it raises is its answer
        detail = f"{entry} raised {type(error).__name__}: {error}"
        raise BuildError(code, detail, "call the function alone in Python to see where") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what other people's code prints to standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _import(name: str, code: BuildCode) -> ModuleType:
    try:
        with quiet():
            if name.endswith(".py"):
                return _import_file(Path(name), code)
            _make_importable(Path.cwd())
            return importlib.import_module(name)
    except BuildError:
        raise
    except Exception as error:  # importing runs other people's code
        detail = f"importing {name} raised {type(error).__name__}: {error}"
        raise BuildError(code, detail, _FORMS) from error


def _import_file(path: Path, code: BuildCode) -> ModuleType:
    if not path.is_file():
        raise BuildError(code, f"there is no file {path}", _FORMS)
    path = path.resolve()
    _make_importable(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BuildError(code, f"{path} is not a Python file", _FORMS)
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickling look their module up by name
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
