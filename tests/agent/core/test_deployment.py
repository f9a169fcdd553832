"""The deployment state machine, exhaustively."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_agent.core.deployment import (
    MAX_ATTEMPTS,
    SUPERSEDABLE,
    TRANSITIONS,
    Effect,
    Event,
    IllegalTransitionError,
    advance,
)
from stoker_agent.core.record import Progress
from stoker_contract.codes import Outcome
from stoker_contract.status import Phase

BUSY = [phase for phase in Phase if phase is not Phase.IDLE]
AFTER_THE_FLIP = {Phase.SWAPPING, Phase.PROBATION, Phase.COMMITTING, Phase.ROLLING_BACK}
BEFORE_THE_FLIP = [phase for phase in BUSY if phase not in AFTER_THE_FLIP]


def rows_with(effect: Effect) -> set[tuple[Phase, Event]]:
    """Where an effect is asked for."""
    return {key for key, row in TRANSITIONS.items() if effect in row.effects}


@pytest.mark.parametrize("phase", Phase)
def test_power_loss_is_survivable_in_every_phase(phase: Phase) -> None:
    """A restart in any phase has a defined continuation."""
    advance(Progress(phase=phase), Event.RESTARTED)


@pytest.mark.parametrize("phase", BUSY)
def test_every_busy_phase_has_work_to_do(phase: Phase) -> None:
    """A deployment never waits for nothing: each way into a phase starts an effect."""
    ways_in = [row for row in TRANSITIONS.values() if row.phase is phase]

    assert ways_in
    assert all(row.effects for row in ways_in)


@pytest.mark.parametrize("phase", BUSY)
def test_every_busy_phase_can_reach_idle(phase: Phase) -> None:
    """No phase is a trap."""
    edges: dict[Phase, set[Phase]] = {}
    for (source, _), row in TRANSITIONS.items():
        edges.setdefault(source, set()).add(row.phase)
    seen, frontier = {phase}, [phase]
    while frontier:
        new = edges[frontier.pop()] - seen
        seen |= new
        frontier.extend(new)

    assert Phase.IDLE in seen


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_unlisted_transitions_are_refused(phase: Phase, event: Event) -> None:
    """What the table does not list raises, and changes nothing."""
    if (phase, event) in TRANSITIONS:
        return
    progress = Progress(phase=phase)
    with pytest.raises(IllegalTransitionError):
        advance(progress, event)

    assert progress == Progress(phase=phase)


def test_a_deployment_ends_with_an_outcome_and_a_final_status() -> None:
    """Idle is reached by exactly the rows that say how it ended."""
    for (phase, event), row in TRANSITIONS.items():
        if phase is Phase.IDLE:
            continue
        ends = row.phase is Phase.IDLE
        assert ends == (row.outcome is not None), (phase, event)
        assert ends == (Effect.FINISH in row.effects), (phase, event)


def test_only_a_commit_retires_the_old_engine() -> None:
    """The old engine is closed on the way into COMMITTING, after the slot file is written."""
    assert rows_with(Effect.RETIRE) == {
        (Phase.PROBATION, Event.PROVED),
        (Phase.COMMITTING, Event.RESTARTED),
    }
    for key in rows_with(Effect.RETIRE):
        assert TRANSITIONS[key].effects == (Effect.COMMIT, Effect.RETIRE)


def test_only_golden_leads_to_the_swap() -> None:
    """Nothing serves that was not compared with its golden set."""
    assert rows_with(Effect.SWAP) == {(Phase.GOLDEN, Event.AGREED)}


def test_only_a_proved_engine_is_committed() -> None:
    """The slot files change after probation, and when a commit is repeated."""
    ways_in = {key for key, row in TRANSITIONS.items() if row.phase is Phase.COMMITTING}

    assert ways_in == {(Phase.PROBATION, Event.PROVED), (Phase.COMMITTING, Event.RESTARTED)}


@pytest.mark.parametrize("event", [Event.FAILED, Event.DEADLINE, Event.EXHAUSTED])
def test_trouble_before_the_flip_changes_nothing(event: Event) -> None:
    """No row before the swap restores anything: there is nothing to restore."""
    for phase in BEFORE_THE_FLIP:
        row = TRANSITIONS.get((phase, event))
        if row is not None:
            assert row.phase is Phase.IDLE
            assert Effect.RESTORE not in row.effects


def test_trouble_after_the_flip_brings_the_old_engine_back() -> None:
    """A failure that may have been served ends in ROLLING_BACK, never in idle."""
    for phase in AFTER_THE_FLIP - {Phase.ROLLING_BACK}:
        row = TRANSITIONS[phase, Event.FAILED]
        assert (row.phase, row.effects) == (Phase.ROLLING_BACK, (Effect.RESTORE,))


def test_a_loaded_candidate_is_closed_whenever_it_is_given_up() -> None:
    """From LOADING to GOLDEN every end aborts the candidate."""
    for (phase, event), row in TRANSITIONS.items():
        if phase in {Phase.LOADING, Phase.WARMING, Phase.GOLDEN} and row.phase is Phase.IDLE:
            assert Effect.ABORT in row.effects, (phase, event)


def test_a_newer_generation_supersedes_in_every_phase_before_the_swap() -> None:
    """And in no phase after it."""
    assert set(BEFORE_THE_FLIP) == SUPERSEDABLE


def test_losing_the_server_never_rolls_back() -> None:
    """A server that restarted serves the old engine by itself; the candidate is tried again."""
    for (_, event), row in TRANSITIONS.items():
        if event is Event.SERVER_LOST:
            assert row.phase is Phase.STAGED


def test_a_third_interruption_gives_up() -> None:
    """A candidate is loaded at most three times."""
    progress = Progress(phase=Phase.LOADING)
    for attempt in range(2, MAX_ATTEMPTS + 1):
        progress, _ = advance(progress, Event.RESTARTED)
        assert (progress.phase, progress.attempt) == (Phase.STAGED, attempt)
        progress = progress.model_copy(update={"phase": Phase.LOADING})
    progress, effects = advance(progress, Event.SERVER_LOST)

    assert progress.outcome is Outcome.FAILED_NO_CHANGE
    assert Effect.ABORT in effects


def test_a_policy_may_allow_fewer_attempts_but_never_more() -> None:
    """``max_attempts`` of the cloud is capped by the device."""
    last = Progress(phase=Phase.LOADING, attempt=MAX_ATTEMPTS)
    impatient, _ = advance(Progress(phase=Phase.LOADING), Event.RESTARTED, max_attempts=1)
    greedy, _ = advance(last, Event.RESTARTED, max_attempts=100)

    assert impatient.outcome is Outcome.FAILED_NO_CHANGE
    assert greedy.outcome is Outcome.FAILED_NO_CHANGE


def test_the_second_unclean_restart_on_probation_rolls_back() -> None:
    """One may be chance; two are the new engine."""
    first, _ = advance(Progress(phase=Phase.PROBATION), Event.RESTARTED)
    again = first.model_copy(update={"phase": Phase.PROBATION})
    second, effects = advance(again, Event.RESTARTED)

    assert first.phase is Phase.STAGED
    assert second.phase is Phase.ROLLING_BACK
    assert effects == (Effect.RESTORE,)


def test_a_verification_that_kills_the_agent_does_not_loop_for_ever() -> None:
    """Restarts are bounded also in phases that just repeat."""
    progress = Progress(phase=Phase.VERIFYING)
    for _ in range(100):
        progress, _effects = advance(progress, Event.RESTARTED)
        if progress.outcome is not None:
            break

    assert progress.outcome is Outcome.FAILED_NO_CHANGE


@given(st.lists(st.sampled_from(list(Event)), max_size=300))
def test_any_story_ends_once_and_keeps_within_its_limits(events: list[Event]) -> None:
    """Whatever happens in whatever order: attempts are bounded, and idle is the end."""
    progress, _ = advance(Progress(phase=Phase.IDLE), Event.DESIRED)
    for event in events:
        if (progress.phase, event) not in TRANSITIONS or event is Event.EXHAUSTED:
            continue
        progress, _effects = advance(progress, event)
        assert progress.attempt <= MAX_ATTEMPTS
        if progress.outcome is not None:
            assert progress.phase is Phase.IDLE
            break
