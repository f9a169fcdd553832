"""What the demo promises: each with what was measured, and whether it held."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise and what became of it."""

    text: str
    measured: str
    held: bool


@dataclass(slots=True)
class Scorecard:
    """All promises of one run. A run that measured nothing has not succeeded."""

    promises: list[Promise] = field(default_factory=list)

    def add(self, text: str, measured: str, *, held: bool) -> Promise:
        """Write one promise down."""
        promise = Promise(text, measured, held)
        self.promises.append(promise)
        return promise

    @property
    def all_held(self) -> bool:
        """Whether there are promises and every one held."""
        return bool(self.promises) and all(promise.held for promise in self.promises)

    def to_object(self) -> list[dict[str, object]]:
        """The scorecard as JSON."""
        return [
            {"promise": promise.text, "measured": promise.measured, "held": promise.held}
            for promise in self.promises
        ]
