"""The errors of the agent. Each carries a reason code and says what to do."""

from stoker_contract.codes import ReasonCode

MAX_DETAIL_CHARACTERS = 1024


class AgentError(Exception):
    """Something the agent could not do.

    Attributes:
        code: why, for machines.
        detail: what happened and what to do, for people; at most 1 KiB.
        slot: the slot it is about, if it is about one.
    """

    def __init__(self, code: ReasonCode, detail: str, *, slot: str | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail[:MAX_DETAIL_CHARACTERS]
        self.slot = slot


class TrustError(AgentError):
    """A desired state was refused, or could not be verified yet.

    Attributes:
        final: the same bytes will be refused again, so there is no point in a retry.
        generation: of the document, once its signature was verified; None before that.
        deployment_id: as ``generation``; a status can be reported only when both are known.
    """

    def __init__(
        self,
        code: ReasonCode,
        detail: str,
        final: bool = True,  # noqa: FBT001, FBT002 - part of the agreed constructor
        *,
        generation: int | None = None,
        deployment_id: str | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.final = final
        self.generation = generation
        self.deployment_id = deployment_id


class ControlError(AgentError):
    """The server refused or failed an operation, or could not be reached."""


class JournalError(AgentError):
    """The journal can not be read or written now, ``DISK_SPACE`` if only for want of space.

    Nothing was changed; the same call may work later.
    """


class ArtifactError(AgentError):
    """A file could not be fetched, is not what was signed, or is not safe to load."""


class ConfigError(Exception):
    """The configuration file can not be used; the text says which line and why."""
