"""How a build tells how far it is. The command line draws it; a test ignores it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stage(Protocol):
    """One long step."""

    def advance(self, steps: float = 1) -> None:
        """So many more of the steps are done."""


class Progress(Protocol):
    """Where stages are announced."""

    def stage(self, title: str, total: float) -> AbstractContextManager[Stage]:
        """Begin a step of ``total`` parts; leaving the context ends it."""

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""


class Silence:
    """Progress for nobody."""

    def stage(self, title: str, total: float) -> AbstractContextManager[Stage]:
        """Begin a step that nobody watches."""
        del title, total
        return nullcontext(self)

    def advance(self, steps: float = 1) -> None:
        """Nobody counts."""

    def note(self, text: str) -> None:
        """Nobody listens."""
