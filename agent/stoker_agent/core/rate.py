"""How often something may be done: a bucket of tokens that fills with time."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """At most ``burst`` at once, and ``per_s`` a second after that.

    Attributes:
        level: tokens that are left; below zero what was taken ahead.
        seen_s: when ``level`` was true, on the monotonic clock.
    """

    burst: float
    per_s: float
    level: float
    seen_s: float

    @classmethod
    def full(cls, burst: float, per_s: float, now_s: float) -> "TokenBucket":
        """A bucket that nobody has taken from."""
        return cls(burst, per_s, burst, now_s)

    def take(self, now_s: float) -> float:
        """Take a token; returns how many seconds to wait before it may be used."""
        self.level = min(self.burst, self.level + (now_s - self.seen_s) * self.per_s) - 1
        self.seen_s = now_s
        return max(0.0, -self.level / self.per_s)
