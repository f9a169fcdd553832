"""The life of a job: all that can happen to it, in one table.

An event that is not listed for a state raises, and changes nothing. A worker that comes too late
with its outcome, or a second one that was woken by a repeated message, ends there.
"""

from collections.abc import Mapping
from typing import Final

from stoker_contract.enums import StrEnum


class JobState(StrEnum):
    """Where a job is. Values are stored: never rename one."""

    WAITING = "waiting"  # for a worker of its class
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"  # a worker says that it can not be built
    REFUSED = "refused"  # the workers that took it ended without a word
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    """What happens to a job."""

    TAKE = "take"
    KNOWN = "known"  # somebody has built the same before
    SUCCEED = "succeed"
    FAIL = "fail"
    LOSE = "lose"  # its worker was not heard of for too long
    GIVE_UP = "give-up"  # the same, and it was the last attempt
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[JobState, JobEvent], JobState]] = {
    (JobState.WAITING, JobEvent.TAKE): JobState.TAKEN,
    (JobState.WAITING, JobEvent.KNOWN): JobState.DONE,
    (JobState.WAITING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.TAKEN, JobEvent.SUCCEED): JobState.DONE,
    (JobState.TAKEN, JobEvent.FAIL): JobState.FAILED,
    (JobState.TAKEN, JobEvent.LOSE): JobState.WAITING,
    (JobState.TAKEN, JobEvent.GIVE_UP): JobState.REFUSED,
    (JobState.TAKEN, JobEvent.CANCEL): JobState.CANCELLED,
}

FINAL: Final = frozenset(JobState) - {state for state, _ in TRANSITIONS}


class UnexpectedEventError(Exception):
    """An event that a state does not know; nothing has changed."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that is {state} does not {event}")
        self.state = state
        self.event = event


def after(state: JobState, event: JobEvent) -> JobState:
    """The state that an event leads to.

    Raises:
        UnexpectedEventError: the event is not listed for the state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise UnexpectedEventError(state, event) from None


def loss(attempts: int, max_attempts: int) -> JobEvent:
    """What losing a worker means to a job: another attempt, or that it is to blame itself."""
    return JobEvent.LOSE if attempts < max_attempts else JobEvent.GIVE_UP
