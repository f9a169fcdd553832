"""What a process needs to find what this one has. For Python 3.10 too, like the plan compiler."""

import os
import sys


def own_environment() -> dict[str, str]:
    """The environment of a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
