"""Errors that end a command cleanly: what happened, and what to do about it."""

from stoker_contract.codes import ReasonCode


class CommandError(Exception):
    """A command could not do its job, for a reason that the user can act on.

    Attributes:
        hint: what to do next.
        code: the reason code, where there is one.
    """

    def __init__(self, detail: str, *, hint: str = "", code: ReasonCode | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.code = code
