"""A process that writes into a journal until it is killed, and says what it was promised."""

import sys
from pathlib import Path

from stoker_agent.core.deployment import Event, advance
from stoker_agent.core.record import Intent, Progress, Record
from stoker_agent.state.journal import Journal, Message
from stoker_contract.status import Phase
from support.documents import DESIRED, DIGEST, TIME

STEPS = {
    Phase.ACCEPTED: Event.PLANNED,
    Phase.DOWNLOADING: Event.DOWNLOADED,
    Phase.VERIFYING: Event.FAILED,
}


def main() -> None:
    """Begin and end one deployment after the other; a line on stdout is a durable promise."""
    journal = Journal(Path(sys.argv[1]))
    _say(f"epoch {journal.begin_epoch()}")
    generation = journal.generation()[0]
    for record in journal.unfinished():
        _finish(journal, record)
    while True:
        generation += 1
        desired = DESIRED.model_copy(update={"deployment_id": f"d-{generation}"})
        intent = Intent(
            generation=generation,
            payload_sha256=DIGEST,
            desired=desired,
            manifests={},
            accepted=TIME,
        )
        progress, _ = advance(Progress(phase=Phase.IDLE), Event.DESIRED)
        record = Record(intent=intent, progress=progress)
        journal.accept(record, {"image.targets": generation})
        _say(f"accepted {generation}")
        _finish(journal, record)


def _finish(journal: Journal, record: Record) -> None:
    while record.progress.outcome is None:
        progress, _ = advance(record.progress, STEPS[record.progress.phase])
        record = record.model_copy(update={"progress": progress})
        if progress.outcome is None:
            journal.record(record, [Message("status", b"step")])
        else:
            journal.finish(record, Message("final", str(record.generation).encode(), "final"))
            _say(f"finished {record.generation}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
