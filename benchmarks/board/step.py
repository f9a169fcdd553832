"""A step of the check: what came of it, or why it could not be done. No step ends the check."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True)
class Step:
    """One line of the result.

    Attributes:
        said: what came of it; of one that was not done, the reason.
        facts: figures, for whoever reads the JSON.
    """

    name: str
    done: bool
    said: str
    seconds: float = 0.0
    facts: Mapping[str, object] = field(default_factory=dict)


class NotDoneError(Exception):
    """A step can not be done here; the text says why, and what to do about it."""


class Steps:
    """The steps so far, told as they end."""

    def __init__(self, tell: Callable[[Step], None]) -> None:
        self.all: list[Step] = []
        self._tell = tell

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, object]]:
        """Do something; what it puts under ``said`` is its line, the rest are its facts."""
        began, facts = time.monotonic(), dict[str, object]()
        try:
            yield facts
        except NotDoneError as error:
            self._end(name, began, facts, why=str(error))
        except Exception as error:  # noqa: BLE001 - a surprise is a result too, and not the last one
            facts["traceback"] = traceback.format_exc()[-4000:]
            self._end(name, began, facts, why=f"{type(error).__name__}: {error}")
        else:
            self._end(name, began, facts)

    def attempt(self, name: str, work: Callable[[dict[str, object]], Made]) -> Made | None:
        """The same for something that makes what later steps need; None where it was not done."""
        with self.step(name) as facts:
            return work(facts)
        return None

    def _end(
        self, name: str, began: float, facts: dict[str, object], why: str | None = None
    ) -> None:
        seconds = round(time.monotonic() - began, 3)
        said = str(facts.pop("said", "done")) if why is None else why
        self.all.append(Step(name, why is None, said, seconds, facts))
        self._tell(self.all[-1])
