"""When a lost connection is tried again."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_agent.core.backoff import MAX_DOUBLINGS, STABLE_S, Backoff
from stoker_agent.core.rate import TokenBucket


def longest(backoff: Backoff) -> float:
    """The most that can be waited, close enough."""
    rng = Random(7)  # noqa: S311 - jitter
    return max(backoff.delay_s(rng) for _ in range(2_000))


def test_the_first_attempt_is_not_delayed() -> None:
    """Who has not failed does not wait; the jitter after a boot is the session's own."""
    assert Backoff(1.0, 300.0).delay_s(Random(1)) == 0.0  # noqa: S311 - jitter


def test_each_failure_doubles_the_window_up_to_the_cap() -> None:
    """The delay is drawn from U(0, min(cap, base·2^n))."""
    backoff = Backoff(1.0, 6.0)
    windows = []
    for _ in range(5):
        backoff = backoff.ended(0.0)
        windows.append(longest(backoff))

    assert windows == pytest.approx([1.0, 2.0, 4.0, 6.0, 6.0], rel=0.02)


def test_a_session_that_was_kicked_counts_as_a_failure() -> None:
    """A broker that accepts and drops everybody is left alone more and more."""
    backoff = Backoff(1.0, 300.0)
    for _ in range(4):
        backoff = backoff.ended(STABLE_S - 0.1)

    assert backoff.failures == 4


def test_only_a_session_that_lived_starts_again_from_the_base() -> None:
    """After a minute of connection the next loss is a new story."""
    tired = Backoff(1.0, 300.0, failures=9)

    assert tired.ended(STABLE_S).failures == 1
    assert longest(tired.ended(STABLE_S)) <= 1.0


@given(
    base_s=st.floats(0.01, 60),
    cap_s=st.floats(60, 3600),
    failures=st.integers(0, 10_000),
    floor_s=st.floats(0, 3600),
    seed=st.integers(),
)
def test_a_delay_is_bounded_and_respects_the_floor(
    base_s: float, cap_s: float, failures: int, floor_s: float, seed: int
) -> None:
    """However long it goes on, the delay is between the floor and the floor plus the cap."""
    backoff = Backoff(base_s, cap_s, min(failures, MAX_DOUBLINGS))

    delay_s = backoff.delay_s(Random(seed), floor_s=floor_s)  # noqa: S311 - jitter

    assert floor_s <= delay_s <= floor_s + cap_s


def test_devices_that_wait_for_the_floor_do_not_come_back_in_step() -> None:
    """The floor of a notice moves the window and does not close it."""
    backoff = Backoff(1.0, 300.0, failures=6)
    delays = {round(backoff.delay_s(Random(n), floor_s=60.0), 1) for n in range(50)}  # noqa: S311

    assert len(delays) > 30


def test_failures_do_not_grow_for_ever() -> None:
    """A device that was offline for a year can still compute its delay."""
    backoff = Backoff(1.0, 300.0, failures=MAX_DOUBLINGS).ended(0.0)

    assert backoff.failures == MAX_DOUBLINGS
    assert longest(backoff) <= 300.0


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    """What comes at once is let through up to the burst; the rest is spread out."""
    bucket = TokenBucket.full(3, 0.5, now_s=100.0)

    assert [bucket.take(100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 2.0, 4.0]
    assert bucket.take(200.0) == 0.0
    assert bucket.level == 2.0


@given(gaps_s=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_a_bucket_never_gives_more_than_burst_and_rate(gaps_s: list[float]) -> None:
    """Whenever they are asked for, tokens are usable at the promised rate only."""
    bucket, now_s, usable = TokenBucket.full(4, 2.0, now_s=0.0), 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        usable.append(now_s + bucket.take(now_s))
        now_s = usable[-1]

    for first, last in zip(usable, usable[4:], strict=False):
        assert last - first >= 0.5 - 1e-6
