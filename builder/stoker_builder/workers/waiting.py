"""Waiting for a plan, visibly and not for ever."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.progress import Progress
from stoker_builder.workers.executor import BuildExecutor, Built
from stoker_builder.workers.states import FINAL

LOOK_S: Final = 1.0


def await_built(  # noqa: PLR0913  time comes in
    executor: BuildExecutor,
    ticket: str,
    progress: Progress,
    *,
    wait_s: float,
    clock: Callable[[], float],
    pause: Callable[[float], object],
) -> Built:
    """The plan of a ticket.

    Args:
        executor: who makes it.
        ticket: of the plan.
        progress: is told what it waits for, whenever that changes.
        wait_s: then it is given up.
        clock: seconds, monotonic.
        pause: lets so many seconds pass.

    Raises:
        BuildError: ``NO_WORKER``, or why it can not be made.
    """
    began_s, said = clock(), ""
    while True:
        standing = executor.state(ticket)
        if standing.words and standing.words != said:
            said = standing.words
            progress.note(said)
        if standing.state in FINAL:
            return executor.outcome(ticket)
        if clock() - began_s >= wait_s:
            with suppress(BuildError):  # that nobody builds it is what to tell
                executor.withdraw(ticket)
            detail = f"{said}, and that for {wait_s:g} s"
            hint = "start `stoker worker` on such a board, wait longer (--wait-s), or leave it out"
            raise BuildError(BuildCode.NO_WORKER, detail, hint)
        pause(LOOK_S)
