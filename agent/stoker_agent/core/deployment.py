"""The deployment state machine: every transition a deployment can make, and nothing else.

Rule 1: a transition that is not in ``TRANSITIONS`` cannot happen.
Rule 2: this module does no I/O, reads no clock and logs nothing. The shell
(``stoker_agent.app.deployer``) persists the new state *before* it runs the effects.
Rule 3: all slots of a desired state go through the phases together, so that either all of them
change or none does.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from stoker_agent.core.record import Progress
from stoker_contract.codes import Outcome
from stoker_contract.status import Phase

MAX_ATTEMPTS: Final = 3
MAX_WRITES_PER_ATTEMPT: Final = 64
MAX_PROBATION_RESTARTS: Final = 2


class Event(StrEnum):
    """What can happen to a deployment."""

    DESIRED = "desired"  # a new generation was verified
    PLANNED = "planned"
    SATISFIED = "satisfied"  # the device already is what is asked for
    REJECTED = "rejected"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    ACTIVATED = "activated"  # the window is open and the server answers
    CHECKED = "checked"
    LOADED = "loaded"
    WARMED = "warmed"
    AGREED = "agreed"  # golden set and latency gates hold
    SWAPPED = "swapped"
    PROVED = "proved"
    COMMITTED = "committed"
    RESTORED = "restored"
    FAILED = "failed"
    DEADLINE = "deadline"  # the phase took longer than it may
    SUPERSEDED = "superseded"  # a newer generation was accepted
    CANCELED = "canceled"  # by a person on the device
    HELD = "held"  # a person on the device stopped all updates for a while
    SERVER_LOST = "server_lost"  # the server restarted, and forgot candidate and probation
    RESTARTED = "restarted"  # the agent came back up in this phase
    RESUMED = "resumed"  # as RESTARTED, but it had been stopped in order
    EXHAUSTED = "exhausted"  # RESTARTED or SERVER_LOST once too often


class Effect(StrEnum):
    """What the shell must do next. Each one can be repeated after a crash."""

    EVALUATE = "evaluate"
    DOWNLOAD = "download"
    VERIFY = "verify"
    AWAIT_ACTIVATION = "await_activation"
    PREFLIGHT = "preflight"
    LOAD = "load"
    WARM = "warm"
    PROVE = "prove"
    SWAP = "swap"
    OBSERVE = "observe"
    COMMIT = "commit"
    RETIRE = "retire"  # the old engine is closed
    ABORT = "abort"  # the candidate is closed; what serves is untouched
    RESTORE = "restore"  # what the slot files named before serves again, and no candidate is left
    FINISH = "finish"  # the final status


class Row(NamedTuple):
    """Where an event leads, what to do there, and how it ended if it did."""

    phase: Phase
    effects: tuple[Effect, ...]
    outcome: Outcome | None = None


class IllegalTransitionError(Exception):
    """An event arrived in a phase that does not expect it: a bug in the shell."""


_P, _E, _F, _O = Phase, Event, Effect, Outcome

_END: Final = (_F.FINISH,)
_ABORT: Final = (_F.ABORT, _F.FINISH)
_UNDO: Final = (_F.RESTORE, _F.AWAIT_ACTIVATION)
_FAILED: Final = Row(_P.IDLE, _END, _O.FAILED_NO_CHANGE)
_ABORTED: Final = Row(_P.IDLE, _ABORT, _O.FAILED_NO_CHANGE)
_STAGED_AGAIN: Final = Row(_P.STAGED, _UNDO)
_ROLL_BACK: Final = Row(_P.ROLLING_BACK, (_F.RESTORE,))

TRANSITIONS: Final[Mapping[tuple[Phase, Event], Row]] = {
    # The way forward.
    (_P.IDLE, _E.DESIRED): Row(_P.ACCEPTED, (_F.EVALUATE,)),
    (_P.ACCEPTED, _E.PLANNED): Row(_P.DOWNLOADING, (_F.DOWNLOAD,)),
    (_P.DOWNLOADING, _E.DOWNLOADED): Row(_P.VERIFYING, (_F.VERIFY,)),
    (_P.VERIFYING, _E.VERIFIED): Row(_P.STAGED, (_F.AWAIT_ACTIVATION,)),
    (_P.STAGED, _E.ACTIVATED): Row(_P.PREFLIGHT, (_F.PREFLIGHT,)),
    (_P.PREFLIGHT, _E.CHECKED): Row(_P.LOADING, (_F.LOAD,)),
    (_P.LOADING, _E.LOADED): Row(_P.WARMING, (_F.WARM,)),
    (_P.WARMING, _E.WARMED): Row(_P.GOLDEN, (_F.PROVE,)),
    (_P.GOLDEN, _E.AGREED): Row(_P.SWAPPING, (_F.SWAP,)),
    (_P.SWAPPING, _E.SWAPPED): Row(_P.PROBATION, (_F.OBSERVE,)),
    (_P.PROBATION, _E.PROVED): Row(_P.COMMITTING, (_F.COMMIT, _F.RETIRE)),
    (_P.COMMITTING, _E.COMMITTED): Row(_P.IDLE, _END, _O.SUCCEEDED),
    # Nothing to do, or never to be done.
    (_P.ACCEPTED, _E.SATISFIED): Row(_P.IDLE, _END, _O.NOOP),
    (_P.ACCEPTED, _E.REJECTED): Row(_P.IDLE, _END, _O.REJECTED),
    # Before the swap a failure costs nothing: report it and keep serving.
    (_P.ACCEPTED, _E.FAILED): _FAILED,
    (_P.DOWNLOADING, _E.FAILED): _FAILED,
    (_P.VERIFYING, _E.FAILED): _FAILED,
    (_P.STAGED, _E.FAILED): _FAILED,
    (_P.PREFLIGHT, _E.FAILED): _FAILED,
    (_P.LOADING, _E.FAILED): _ABORTED,
    (_P.WARMING, _E.FAILED): _ABORTED,
    (_P.GOLDEN, _E.FAILED): _ABORTED,
    # From the flip on the route may lead to the new engine: the old one has to come back.
    (_P.SWAPPING, _E.FAILED): _ROLL_BACK,
    (_P.PROBATION, _E.FAILED): _ROLL_BACK,
    (_P.COMMITTING, _E.FAILED): _ROLL_BACK,
    (_P.ROLLING_BACK, _E.RESTORED): Row(_P.IDLE, _END, _O.ROLLED_BACK),
    # Too late. Probation has its own end, and a commit is only a file; both wait for the server.
    (_P.ACCEPTED, _E.DEADLINE): Row(_P.IDLE, _END, _O.TIMED_OUT),
    (_P.DOWNLOADING, _E.DEADLINE): Row(_P.IDLE, _END, _O.TIMED_OUT),
    (_P.VERIFYING, _E.DEADLINE): Row(_P.IDLE, _END, _O.TIMED_OUT),
    (_P.STAGED, _E.DEADLINE): Row(_P.IDLE, _END, _O.TIMED_OUT),
    (_P.PREFLIGHT, _E.DEADLINE): Row(_P.IDLE, _END, _O.TIMED_OUT),
    (_P.LOADING, _E.DEADLINE): Row(_P.IDLE, _ABORT, _O.TIMED_OUT),
    (_P.WARMING, _E.DEADLINE): Row(_P.IDLE, _ABORT, _O.TIMED_OUT),
    (_P.GOLDEN, _E.DEADLINE): Row(_P.IDLE, _ABORT, _O.TIMED_OUT),
    (_P.SWAPPING, _E.DEADLINE): _ROLL_BACK,
    (_P.ROLLING_BACK, _E.DEADLINE): Row(_P.IDLE, _END, _O.ROLLBACK_FAILED),
    # A newer generation. After the flip it waits for the verdict.
    (_P.ACCEPTED, _E.SUPERSEDED): Row(_P.IDLE, _END, _O.SUPERSEDED),
    (_P.DOWNLOADING, _E.SUPERSEDED): Row(_P.IDLE, _END, _O.SUPERSEDED),
    (_P.VERIFYING, _E.SUPERSEDED): Row(_P.IDLE, _END, _O.SUPERSEDED),
    (_P.STAGED, _E.SUPERSEDED): Row(_P.IDLE, _END, _O.SUPERSEDED),
    (_P.PREFLIGHT, _E.SUPERSEDED): Row(_P.IDLE, _END, _O.SUPERSEDED),
    (_P.LOADING, _E.SUPERSEDED): Row(_P.IDLE, _ABORT, _O.SUPERSEDED),
    (_P.WARMING, _E.SUPERSEDED): Row(_P.IDLE, _ABORT, _O.SUPERSEDED),
    (_P.GOLDEN, _E.SUPERSEDED): Row(_P.IDLE, _ABORT, _O.SUPERSEDED),
    # A person on the device.
    (_P.ACCEPTED, _E.CANCELED): Row(_P.IDLE, _END, _O.CANCELED),
    (_P.DOWNLOADING, _E.CANCELED): Row(_P.IDLE, _END, _O.CANCELED),
    (_P.VERIFYING, _E.CANCELED): Row(_P.IDLE, _END, _O.CANCELED),
    (_P.STAGED, _E.CANCELED): Row(_P.IDLE, _END, _O.CANCELED),
    (_P.PREFLIGHT, _E.CANCELED): Row(_P.IDLE, _END, _O.CANCELED),
    (_P.LOADING, _E.CANCELED): Row(_P.IDLE, _ABORT, _O.CANCELED),
    (_P.WARMING, _E.CANCELED): Row(_P.IDLE, _ABORT, _O.CANCELED),
    (_P.GOLDEN, _E.CANCELED): Row(_P.IDLE, _ABORT, _O.CANCELED),
    (_P.PROBATION, _E.CANCELED): _ROLL_BACK,
    # As long as a person holds all updates, a deployment waits, without a candidate in memory.
    (_P.DOWNLOADING, _E.HELD): Row(_P.DOWNLOADING, (_F.DOWNLOAD,)),
    (_P.VERIFYING, _E.HELD): Row(_P.VERIFYING, (_F.VERIFY,)),
    (_P.STAGED, _E.HELD): Row(_P.STAGED, (_F.AWAIT_ACTIVATION,)),
    (_P.PREFLIGHT, _E.HELD): Row(_P.STAGED, (_F.AWAIT_ACTIVATION,)),
    (_P.LOADING, _E.HELD): Row(_P.STAGED, (_F.ABORT, _F.AWAIT_ACTIVATION)),
    (_P.WARMING, _E.HELD): Row(_P.STAGED, (_F.ABORT, _F.AWAIT_ACTIVATION)),
    (_P.GOLDEN, _E.HELD): Row(_P.STAGED, (_F.ABORT, _F.AWAIT_ACTIVATION)),
    # Power loss. A download resumes; from the load on everything is proved again, with the
    # engine of the slot file serving meanwhile.
    (_P.IDLE, _E.RESTARTED): Row(_P.IDLE, ()),
    (_P.ACCEPTED, _E.RESTARTED): Row(_P.ACCEPTED, (_F.EVALUATE,)),
    (_P.DOWNLOADING, _E.RESTARTED): Row(_P.DOWNLOADING, (_F.DOWNLOAD,)),
    (_P.VERIFYING, _E.RESTARTED): Row(_P.VERIFYING, (_F.VERIFY,)),
    (_P.STAGED, _E.RESTARTED): _STAGED_AGAIN,
    (_P.PREFLIGHT, _E.RESTARTED): _STAGED_AGAIN,
    (_P.LOADING, _E.RESTARTED): _STAGED_AGAIN,
    (_P.WARMING, _E.RESTARTED): _STAGED_AGAIN,
    (_P.GOLDEN, _E.RESTARTED): _STAGED_AGAIN,
    (_P.SWAPPING, _E.RESTARTED): _STAGED_AGAIN,
    (_P.PROBATION, _E.RESTARTED): _STAGED_AGAIN,
    (_P.COMMITTING, _E.RESTARTED): Row(_P.COMMITTING, (_F.COMMIT, _F.RETIRE)),
    (_P.ROLLING_BACK, _E.RESTARTED): _ROLL_BACK,
    # An agent that was stopped in order goes on watching; if the server went with it, that shows.
    (_P.PROBATION, _E.RESUMED): Row(_P.PROBATION, (_F.OBSERVE,)),
    # A server that restarted serves what the slot files name, which is the old engine.
    (_P.LOADING, _E.SERVER_LOST): _STAGED_AGAIN,
    (_P.WARMING, _E.SERVER_LOST): _STAGED_AGAIN,
    (_P.GOLDEN, _E.SERVER_LOST): _STAGED_AGAIN,
    (_P.SWAPPING, _E.SERVER_LOST): _STAGED_AGAIN,
    (_P.PROBATION, _E.SERVER_LOST): _STAGED_AGAIN,
    # Once too often.
    (_P.ACCEPTED, _E.EXHAUSTED): _FAILED,
    (_P.DOWNLOADING, _E.EXHAUSTED): _FAILED,
    (_P.VERIFYING, _E.EXHAUSTED): _FAILED,
    (_P.STAGED, _E.EXHAUSTED): _FAILED,
    (_P.PREFLIGHT, _E.EXHAUSTED): _FAILED,
    (_P.LOADING, _E.EXHAUSTED): _ABORTED,
    (_P.WARMING, _E.EXHAUSTED): _ABORTED,
    (_P.GOLDEN, _E.EXHAUSTED): _ABORTED,
    (_P.SWAPPING, _E.EXHAUSTED): _ROLL_BACK,
    (_P.PROBATION, _E.EXHAUSTED): _ROLL_BACK,
}

_INTERRUPTIONS: Final = frozenset({_E.RESTARTED, _E.SERVER_LOST})
SUPERSEDABLE: Final = frozenset(p for p, e in TRANSITIONS if e is _E.SUPERSEDED)


def advance(
    progress: Progress, event: Event, *, max_attempts: int = MAX_ATTEMPTS
) -> tuple[Progress, tuple[Effect, ...]]:
    """Return the progress after ``event`` and the effects the shell must now run.

    An interruption that happened once too often counts as ``EXHAUSTED``.

    Raises:
        IllegalTransitionError: ``event`` is not expected in this phase. The
            deployment is unchanged.
    """
    row = _row(progress, event)
    again = event in _INTERRUPTIONS and row.phase is Phase.STAGED and progress.phase != _P.STAGED
    on_probation = event in _INTERRUPTIONS and progress.phase is Phase.PROBATION
    probation_restarts = progress.probation_restarts + on_probation
    attempt = progress.attempt + again
    exhausted = (
        (again and attempt > min(max_attempts, MAX_ATTEMPTS))
        or probation_restarts >= MAX_PROBATION_RESTARTS
        or (event in _INTERRUPTIONS and progress.writes >= MAX_WRITES_PER_ATTEMPT)
    )
    if exhausted and (progress.phase, _E.EXHAUSTED) in TRANSITIONS:
        row, attempt, again = _row(progress, _E.EXHAUSTED), progress.attempt, False
    return progress.model_copy(
        update={
            "phase": row.phase,
            "attempt": attempt,
            "probation_restarts": probation_restarts,
            "writes": 0 if again else progress.writes + 1,
            "outcome": row.outcome,
        }
    ), row.effects


def _row(progress: Progress, event: Event) -> Row:
    try:
        return TRANSITIONS[progress.phase, event]
    except KeyError:
        msg = f"{event} is not expected while {progress.phase}"
        raise IllegalTransitionError(msg) from None
