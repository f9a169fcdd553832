"""What was found out about a quantised file whose answers were not good enough."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """What quantising one node alone does to the answers.

    Attributes:
        damage: mean square of the change of the outputs, relative to their variance.
        measured: False for what got the mean of its kind of operator, for lack of time.
    """

    name: str
    op_type: str
    damage: float
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Repair:
    """The outcome for one file.

    Attributes:
        base: the recipe that made it.
        damages: of its nodes, the worst first.
        reverted: those that are in floating point now; empty when nothing helped.
    """

    base: str
    damages: tuple[Damage, ...]
    reverted: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the repaired file is called."""
        return f"{self.base}-repaired"
