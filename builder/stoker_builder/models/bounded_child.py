"""Does one task in a process without network; started by ``stoker_builder.models.bounded``.

``argv[1]`` is its folder, with ``request.json`` and a frame of ``inputs``; ``answer.json`` is
left there. Limits and namespaces come before anything that could start a thread is imported.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.isolation import fork_and_wait, isolate, limit

_MAX_FILE_BYTES = 4 * 2**30


def main() -> None:
    """Give up all that is not needed, then do the task in a child of this process."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    limit(memory_bytes=request["memory_bytes"], file_bytes=_MAX_FILE_BYTES, cpu_s=request["cpu_s"])
    missing = isolate(folder)
    if "network" in missing and request.get("runs_code"):
        detail = "the model's code can not be kept from the network on this machine"
        hint = "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or build as root"
        _answer(folder, _error(BuildError(BuildCode.ISOLATION, detail, hint)))
        return
    if fork_and_wait():
        os.dup2(2, 1)  # whatever the model prints
        _answer(folder, {**_do(request, folder), "unprotected": list(missing)})


def _do(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    from stoker_builder.models import bounded_tasks  # noqa: PLC0415  imports numpy, which starts threads

    try:
        return bounded_tasks.TASKS[request["task"]](request, folder)
    except BuildError as error:
        return _error(error)
    except MemoryError:
        detail = "the model needs more memory than this machine has to spare"
        hint = "build on a machine with more memory, or make its input smaller"
        return _error(BuildError(BuildCode.EXHAUSTED, detail, hint))
    except Exception as error:  # noqa: BLE001  loading runs other people's code
        detail = f"{type(error).__name__}: {error}"[:500]
        return _error(BuildError(BuildCode(request["code"]), detail, str(request.get("hint", ""))))


def _error(error: BuildError) -> dict[str, Any]:
    return {"error": {"code": error.code, "detail": error.detail, "hint": error.hint}}


def _answer(folder: Path, answer: dict[str, Any]) -> None:
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
