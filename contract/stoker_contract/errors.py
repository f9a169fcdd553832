"""The one error that reading a document can raise."""

from stoker_contract.codes import ReasonCode


class ContractError(ValueError):
    """A document that is not what the contract says.

    Attributes:
        code: why it was refused.
        detail: what was wrong and where, at most 1 KiB.
    """

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail[:1024]
