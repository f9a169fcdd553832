"""When to connect again. Full jitter, so that a fleet does not come back in step."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final

STABLE_S: Final = 60.0
MAX_DOUBLINGS: Final = 62


@dataclass(frozen=True, slots=True)
class Backoff:
    """How many attempts in a row did not become a stable session.

    Attributes:
        base_s: the most that is waited after the first failure.
        cap_s: the most that is ever waited, without the floor.
        failures: attempts since the last session that lived ``STABLE_S``.
    """

    base_s: float
    cap_s: float
    failures: int = 0

    def ended(self, lived_s: float) -> "Backoff":
        """An attempt is over; ``lived_s`` is how long its session lived, 0 if there was none.

        A session that was accepted and then kicked counts as a failure, else a broker that
        accepts and drops everybody would be hammered by the whole fleet.
        """
        if lived_s >= STABLE_S:
            return replace(self, failures=1)
        return replace(self, failures=min(self.failures + 1, MAX_DOUBLINGS))

    def delay_s(self, rng: Random, *, floor_s: float = 0.0) -> float:
        """Draw how long to wait before the next attempt.

        ``floor_s`` is added below the jitter: a floor that every device waits exactly would
        bring the fleet back in step.
        """
        if self.failures == 0:
            return floor_s
        longest_s = min(self.cap_s, self.base_s * 2.0 ** (self.failures - 1))
        return floor_s + rng.uniform(0.0, longest_s)
