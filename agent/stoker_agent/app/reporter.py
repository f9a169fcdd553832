"""What the agent says about itself: status events and the reported state."""

from dataclasses import dataclass
from typing import Protocol

from stoker_agent.clock import Clock, timestamp
from stoker_agent.core.record import Record
from stoker_agent.core.report import Figures, Stamp, reported, status_event
from stoker_agent.errors import AgentError
from stoker_agent.state.journal import Journal, Message, MessageKind
from stoker_agent.state.slots import SlotFiles
from stoker_contract.codes import Outcome
from stoker_contract.control import ServerStatus
from stoker_contract.reported import Capacity, Refusal, Reported
from stoker_contract.status import Phase, StatusEvent
from stoker_contract.target import Profile
from stoker_contract.topics import DeviceTopics


class Host(Protocol):
    """The machine."""

    @property
    def profile(self) -> Profile:
        """What it is."""
        ...

    def disk(self) -> Capacity:
        """Where the state directory is."""
        ...

    def memory(self) -> Capacity:
        """What this process's control group may use."""
        ...

    def time_trusted(self) -> bool:
        """Whether something synchronises the clock."""
        ...


@dataclass(slots=True)
class Reporter:
    """Stamps and builds messages.

    Attributes:
        server: what the server said last; None while it does not answer.
        refusals: desired states that wait until they can be taken.
    """

    topics: DeviceTopics
    journal: Journal
    slots: SlotFiles
    host: Host
    clock: Clock
    server: ServerStatus | None = None
    refusals: tuple[Refusal, ...] = ()

    def stamp(self) -> Stamp:
        """Who, in which order, and when."""
        return Stamp(
            device=self.topics.device,
            fleet=self.topics.fleet,
            epoch=self.journal.epoch(),
            seq=self.journal.next_seq(),
            time=timestamp(self.clock.unix_s()),
            time_trusted=self.host.time_trusted(),
        )

    def message(
        self, record: Record, *, phase: Phase | None = None, done: float | None = None
    ) -> Message:
        """The status event of a deployment as it goes into the outbox."""
        event = status_event(record, self.stamp(), phase=phase, done=done)
        kind: MessageKind = "final" if event.final else "status"
        return Message(self.topics.status(record.deployment_id), event.encode(), kind)

    def refusal(
        self, deployment_id: str, generation: int, error: AgentError, *, final: bool
    ) -> Message:
        """The status of a document that was refused before it became a deployment."""
        stamp = self.stamp()
        event = StatusEvent(
            device=stamp.device,
            deployment_id=deployment_id,
            generation=generation,
            epoch=stamp.epoch,
            seq=stamp.seq,
            phase=Phase.ACCEPTED,
            final=final,
            outcome=Outcome.REJECTED if final else None,
            code=error.code,
            stack=(Phase.ACCEPTED, "trust", error.code),
            detail=error.detail,
            time=stamp.time,
            time_trusted=stamp.time_trusted,
        )
        return Message(
            self.topics.status(deployment_id), event.encode(), "final" if final else "status"
        )

    def reported(self) -> Reported:
        """The full actual state of the device."""
        unfinished = self.journal.unfinished()
        history = self.journal.history(len(unfinished) + 1)
        figures = Figures(self.host.profile, self.host.disk(), self.host.memory())
        return reported(
            self.stamp(),
            figures,
            generation=self.journal.generation()[0],
            running=unfinished[0] if unfinished else None,
            ended=next((r for r in history if r.progress.outcome is not None), None),
            slots=self.slots.read_all(),
            server=self.server,
            bad_digests=tuple(self.journal.bad_digests()),
            held=self.journal.held(),
            refusals=self.refusals,
            outbox_depth=self.journal.depth(),
        )
