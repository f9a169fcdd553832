"""Desired states that can not be taken now, kept until they can.

Bounded, and so that garbage can not push out what was signed: anybody who may write to the topic
can send the one, only the director the other.
"""

from dataclasses import dataclass, field
from typing import Final

from stoker_agent.errors import AgentError
from stoker_contract.codes import ReasonCode
from stoker_contract.reported import Refusal

MAX_UNSIGNED: Final = 7  # and the signed one are as many as a report may name


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    refusal: Refusal


@dataclass(slots=True)
class Pending:
    """The newest document that is signed and for this device, and the last few that are not."""

    _signed: _Waiting | None = None
    _unsigned: dict[str, _Waiting] = field(default_factory=dict)

    def keep(self, payload: bytes, sha256: str, error: AgentError, since: str) -> None:
        """Keep a document, with what was wrong with it this time."""
        generation = getattr(error, "generation", None)
        refusal = Refusal(
            sha256=sha256,
            generation=generation,
            deployment_id=getattr(error, "deployment_id", None),
            code=error.code,
            detail=error.detail[:256],
            since=self._since(sha256, error.code) or since,
        )
        waiting = _Waiting(payload, refusal)
        if generation is not None:
            self._unsigned.pop(sha256, None)
            if generation >= self._generation():
                self._signed = waiting
            return
        self._unsigned[sha256] = waiting
        if len(self._unsigned) > MAX_UNSIGNED:
            del self._unsigned[next(iter(self._unsigned))]

    def forget(self, sha256: str) -> None:
        """A document was taken, or refused for good."""
        self._unsigned.pop(sha256, None)
        if self._signed is not None and self._signed.refusal.sha256 == sha256:
            self._signed = None

    def forget_up_to(self, generation: int) -> None:
        """A document was accepted: what is not newer will never be."""
        if self._generation() <= generation:
            self._signed = None

    def payloads(self) -> list[bytes]:
        """What is to be tried again: first what is signed."""
        return [waiting.payload for waiting in self._all()]

    def refusals(self) -> tuple[Refusal, ...]:
        """What to say about them."""
        return tuple(waiting.refusal for waiting in self._all())

    def _all(self) -> list[_Waiting]:
        return [*([self._signed] if self._signed else []), *self._unsigned.values()]

    def _generation(self) -> int:
        return (self._signed.refusal.generation or 0) if self._signed else 0

    def _since(self, sha256: str, code: ReasonCode) -> str | None:
        known = (r for r in self.refusals() if (r.sha256, r.code) == (sha256, code))
        return next((refusal.since for refusal in known), None)
