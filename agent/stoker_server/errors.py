"""The one error of the server: why a request was refused or an operation failed."""

from stoker_contract.codes import ReasonCode


class ServeError(Exception):
    """A refusal or a failure. It knows no transport; HTTP and control socket translate it."""

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail[:1024]
