"""The one error of the signing side."""

from stoker_contract.codes import ReasonCode


class TrustError(Exception):
    """Keys, a repository or a release are not what they have to be.

    Attributes:
        code: why it was refused.
        detail: what was wrong and where.
        hint: what to do next.
    """

    def __init__(self, code: ReasonCode, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.hint = hint
