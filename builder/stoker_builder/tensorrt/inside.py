"""Where the time of a shipped plan goes, beside the plan of the reference. Pure."""

from collections.abc import Mapping

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.report.document import TargetProfile


def inside(
    target: str, told: Mapping[str, OperatorProfile | None], *, reference: str, shipped: str
) -> TargetProfile | None:
    """What workers saw inside the plans for a target; None where nobody saw what ships.

    Args:
        target: its name.
        told: by candidate; None for one that was not looked into.
        reference: the candidate in FP32.
        shipped: the candidate that ships; it may be the reference.
    """
    seen = {
        name: operators.model_copy(update={"title": name})
        for name, operators in told.items()
        if operators is not None
    }
    if shipped not in seen:
        return None
    after = seen[shipped] if shipped != reference else None
    return TargetProfile(target=target, before=seen.get(reference), after=after)
