"""The one error of the fleet side."""

from stoker_contract.codes import ReasonCode


class FleetError(Exception):
    """Something that was asked of the fleet can not be done.

    Attributes:
        code: why.
        detail: what was wrong and where.
        hint: what to do next.
    """

    def __init__(self, code: ReasonCode, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.hint = hint
