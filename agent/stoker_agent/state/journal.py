"""What the agent knows after a power cut: deployments, floors, bad digests, epoch, outbox.

One transaction per step: the floors go up together with the intent they came with, and the
final status enters the outbox together with the end of the deployment.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from stoker_agent.core.ports import OutboxEntry
from stoker_agent.core.record import Intent, Progress, Record
from stoker_agent.errors import JournalError
from stoker_agent.state.database import Database
from stoker_agent.state.essentials import Essentials, EssentialsFile
from stoker_agent.state.reserve import Reserve, even_when_full
from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError

MessageKind = Literal["final", "status", "telemetry"]
RequestKind = Literal["rollback", "report"]

# Finals are never dropped; there is at most one per generation.
OUTBOX_LIMITS: Final[Mapping[str, int]] = {"status": 2000, "telemetry": 1440}
MAX_BAD_DIGESTS: Final = 64
MAX_REFUSED: Final = 64
MAX_HISTORY: Final = 32
MAX_INTENT_BYTES: Final = 16 * 1024**2

log: Final = structlog.get_logger("stoker.journal")


@dataclass(frozen=True, slots=True)
class Message:
    """Something to be sent, in the same transaction as the change it tells of."""

    topic: str
    payload: bytes
    kind: MessageKind = "status"


class Journal:
    """The durable memory of the agent; implements ``Outbox`` and ``Floors``.

    Every method raises ``JournalError`` when the file can not be read or written now.
    """

    def __init__(self, path: Path, *, first_epoch: int = 1) -> None:
        self.reserve = Reserve(path.with_name("reserve"))
        self._essentials = EssentialsFile(path.with_name("essentials.json"))
        self._db = self._open(path)
        self.reserve.fill()
        self._first_epoch = first_epoch
        self._seq = 0
        self._seq_lock = threading.Lock()

    @even_when_full
    def _open(self, path: Path) -> Database:
        return Database(path)

    @property
    def set_aside(self) -> Path | None:
        """Where a torn file was moved to when this one was opened; None if it was sound."""
        return self._db.set_aside

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Order of messages

    def begin_epoch(self) -> int:
        """Raise the epoch, durably. Once per start, before CONNECT.

        This is also when damage is looked for and mended: nobody but the agent may do that, since
        the command line reads the file of an agent that runs.
        """
        copy = self._essentials.read()
        damage = self._damage(copy)
        if damage:
            self._db.rebuild(damage)
        self._take_back(copy)
        epoch = max(self.epoch() + 1, self._first_epoch)
        self._set_meta("epoch", epoch)
        self.keep_essentials()
        return epoch

    def epoch(self) -> int:
        """The epoch of this start."""
        return self._meta("epoch")

    def next_seq(self) -> int:
        """The next number of a message in this epoch."""
        with self._seq_lock:
            self._seq += 1
            return self._seq

    # Floors

    def generation(self) -> tuple[int, str]:
        """The accepted generation, and the SHA-256 of exactly its bytes; ``(0, "")`` at first."""
        rows = self._db.rows("SELECT generation, sha256 FROM accepted")
        return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")

    def floor(self, name: str) -> int:
        """A floor by name, 0 when it was never raised."""
        rows = self._db.rows("SELECT value FROM floors WHERE name = ?", name)
        return int(rows[0][0]) if rows else 0

    def floors(self) -> dict[str, int]:
        """All floors."""
        return {str(name): int(value) for name, value in self._db.rows("SELECT * FROM floors")}

    @even_when_full
    def raise_floors(self, floors: Mapping[str, int]) -> None:
        """Raise floors, durably; one that is lower than what is known changes nothing."""
        with self._db.change() as connection:
            _raise_floors(connection, floors)
        self.keep_essentials()

    def _damage(self, copy: Essentials | None) -> str:
        """What makes no sense in a file that SQLite finds whole; empty if nothing."""
        try:
            self.bad_digests()
            records = self._records("")
        except (ContractError, ValueError, sqlite3.DatabaseError) as error:
            return f"what was written can not be read: {error}"
        accepted = self.generation()
        believed = {(r.generation, r.intent.payload_sha256) for r in records} | {(0, "")}
        if copy is not None:
            believed.add((copy.generation, copy.payload_sha256))
        return "" if accepted in believed else f"nothing else knows of generation {accepted[0]}"

    @even_when_full
    def _take_back(self, copy: Essentials | None) -> None:
        """Of what a journal has lost, take what the file beside it still knows."""
        rebuilt = self.epoch() == 0
        if copy is None or not (rebuilt or self._is_behind(copy)):
            return
        with self._db.change() as connection:
            _raise_floors(connection, copy.floors)
            if copy.generation > self.generation()[0]:
                _accept_generation(connection, copy.generation, copy.payload_sha256)
            _raise_epoch(connection, copy.epoch)
            if rebuilt:  # else what was blessed since would be bad again
                for digest, code in copy.bad_digests.items():
                    _remember_bad(connection, digest, code)
                connection.execute(
                    "INSERT OR REPLACE INTO meta VALUES ('held', ?)", (int(copy.held),)
                )

    def _is_behind(self, copy: Essentials) -> bool:
        floors = self.floors()
        lower = any(floors.get(name, 0) < value for name, value in copy.floors.items())
        return lower or self.generation()[0] < copy.generation or self.epoch() < copy.epoch

    def keep_essentials(self) -> None:
        """Write the file beside the journal: only the agent, after a change of what is in it.

        It may be late by one change, never ahead.
        """
        try:
            generation, payload_sha256 = self.generation()
            essentials = Essentials(
                epoch=self.epoch(),
                generation=generation,
                payload_sha256=payload_sha256,
                floors=self.floors(),
                bad_digests=self.bad_digests(),
                held=self.held(),
            )
            self._essentials.write(essentials)
        except (JournalError, OSError) as error:  # what it is about is durable already
            log.warning("essentials.not_written", reason=str(error))

    # Outbox

    def enqueue(self, topic: str, payload: bytes, kind: MessageKind = "telemetry") -> None:
        """Keep a message until the broker has it; the oldest of a full kind is dropped.

        For what may be lost: the reserve is not given up for it.
        """
        with self._db.change() as connection:
            _enqueue(connection, [Message(topic, payload, kind)])

    def pending(self, limit: int) -> Sequence[OutboxEntry]:
        """The oldest messages that were not acknowledged yet."""
        rows = self._db.rows("SELECT id, topic, payload FROM outbox ORDER BY id LIMIT ?", limit)
        return [OutboxEntry(int(row[0]), str(row[1]), bytes(row[2])) for row in rows]

    @even_when_full
    def delivered(self, entry_id: int) -> None:
        """Forget a message: the broker has acknowledged it."""
        with self._db.change() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (entry_id,))

    def depth(self) -> int:
        """How many messages wait."""
        return int(self._db.rows("SELECT count(*) FROM outbox")[0][0])

    # Deployments

    @even_when_full
    def accept(
        self, record: Record, floors: Mapping[str, int], messages: Iterable[Message] = ()
    ) -> None:
        """Make an intent and everything that was learnt on the way to it durable."""
        with self._db.change() as connection:
            _raise_floors(connection, floors)
            _accept_generation(connection, record.generation, record.intent.payload_sha256)
            connection.execute(
                "INSERT INTO deployments VALUES (?, ?, ?, 0, ?, ?)",
                (
                    record.generation,
                    record.deployment_id,
                    record.progress.phase,
                    record.intent.encode(),
                    record.progress.encode(),
                ),
            )
            connection.execute(
                "DELETE FROM deployments WHERE finished AND generation NOT IN"
                " (SELECT generation FROM deployments ORDER BY generation DESC LIMIT ?)",
                (MAX_HISTORY,),
            )
            _enqueue(connection, messages)
        self.keep_essentials()

    @even_when_full
    def record(self, record: Record, messages: Iterable[Message] = ()) -> None:
        """Make a step of a deployment durable; call it before the step's effects."""
        with self._db.change() as connection:
            _update(connection, record, finished=False)
            _enqueue(connection, messages)

    @even_when_full
    def finish(
        self, record: Record, final: Message, bad: Mapping[str, ReasonCode] | None = None
    ) -> None:
        """End a deployment: its outcome, its bad digests and its final status, or none of them."""
        with self._db.change() as connection:
            _update(connection, record, finished=True)
            for digest, code in (bad or {}).items():
                _remember_bad(connection, digest, code)
            _enqueue(connection, [final])
        if bad:
            self.keep_essentials()

    def unfinished(self) -> tuple[Record, ...]:
        """Deployments that have no outcome yet, oldest first: at most the running and the next."""
        return self._records("WHERE NOT finished ORDER BY generation")

    def knows(self, payload_sha256: str) -> bool:
        """Whether exactly these bytes are the accepted generation, and what became of it is known.

        A journal that was rebuilt knows the generation, and not whether it was carried out.
        """
        generation, accepted = self.generation()
        query = "SELECT 1 FROM deployments WHERE generation = ?"
        return payload_sha256 == accepted and bool(self._db.rows(query, generation))

    def history(self, limit: int = MAX_HISTORY) -> tuple[Record, ...]:
        """The last deployments, newest first."""
        return self._records("ORDER BY generation DESC LIMIT ?", limit)

    @even_when_full
    def refuse(self, payload_sha256: str, message: Message | None) -> None:
        """Remember that a document was refused for good, and say so once."""
        with self._db.change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO refused"
                " SELECT ?, coalesce(max(sequence), 0) + 1 FROM refused",
                (payload_sha256,),
            )
            connection.execute(
                "DELETE FROM refused WHERE sequence <= (SELECT max(sequence) FROM refused) - ?",
                (MAX_REFUSED,),
            )
            _enqueue(connection, [message] if message else [])

    def was_refused(self, payload_sha256: str) -> bool:
        """Whether exactly these bytes were refused for good before."""
        return bool(self._db.rows("SELECT 1 FROM refused WHERE sha256 = ?", payload_sha256))

    # Bad digests

    def bad_digests(self) -> dict[str, ReasonCode]:
        """Artifacts that failed here and are never started again without force."""
        rows = self._db.rows("SELECT digest, code FROM bad_digests ORDER BY sequence")
        return {str(digest): ReasonCode(code) for digest, code in rows}

    @even_when_full
    def bless(self, digest: str) -> None:
        """Forget that an artifact was bad: it has proved itself."""
        with self._db.change() as connection:
            connection.execute("DELETE FROM bad_digests WHERE digest = ?", (digest,))
        self.keep_essentials()

    # Local wishes, and how the last life ended

    def held(self) -> bool:
        """Whether a person on the device stopped all updates."""
        return bool(self._meta("held"))

    def set_held(self, *, held: bool) -> None:
        """Stop all updates, or allow them again."""
        self._set_meta("held", int(held))

    def set_stopped(self) -> None:
        """Note that the agent was ended in order."""
        self._set_meta("stopped", 1)

    def take_stopped(self) -> bool:
        """Whether the last life was ended in order; from now on this one was not."""
        stopped = bool(self._meta("stopped"))
        if stopped:
            self._set_meta("stopped", 0)
        return stopped

    @even_when_full
    def request(self, kind: RequestKind) -> None:
        """Ask the running agent for something, from another process."""
        with self._db.change() as connection:
            connection.execute("INSERT INTO requests (kind) VALUES (?)", (kind,))

    @even_when_full
    def take_requests(self) -> tuple[str, ...]:
        """What was asked for since the last call."""
        if not self._db.rows("SELECT 1 FROM requests LIMIT 1"):
            return ()
        with self._db.change() as connection:
            rows = connection.execute("SELECT kind FROM requests ORDER BY id").fetchall()
            connection.execute("DELETE FROM requests")
        return tuple(str(row[0]) for row in rows)

    def _records(self, clause: str, *values: object) -> tuple[Record, ...]:
        rows = self._db.rows(f"SELECT intent, progress FROM deployments {clause}", *values)  # noqa: S608 - constant clauses
        return tuple(
            Record(
                intent=Intent.parse(intent, max_bytes=MAX_INTENT_BYTES),
                progress=Progress.parse(progress, max_bytes=MAX_INTENT_BYTES),
            )
            for intent, progress in rows
        )

    def _meta(self, key: str) -> int:
        rows = self._db.rows("SELECT value FROM meta WHERE key = ?", key)
        return int(rows[0][0]) if rows else 0

    @even_when_full
    def _set_meta(self, key: str, value: int) -> None:
        with self._db.change() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _update(connection: sqlite3.Connection, record: Record, *, finished: bool) -> None:
    changed = connection.execute(
        "UPDATE deployments SET phase = ?, progress = ?, finished = ?"
        " WHERE generation = ? AND NOT finished",
        (record.progress.phase, record.progress.encode(), int(finished), record.generation),
    ).rowcount
    if changed != 1:
        # An end happens once: whoever comes second must not send a second final status.
        msg = f"generation {record.generation} is not running"
        raise ValueError(msg)


def _accept_generation(connection: sqlite3.Connection, generation: int, sha256: str) -> None:
    connection.execute(
        "INSERT INTO accepted VALUES (1, ?, ?) ON CONFLICT (only) DO UPDATE"
        " SET generation = excluded.generation, sha256 = excluded.sha256",
        (generation, sha256),
    )


def _raise_epoch(connection: sqlite3.Connection, epoch: int) -> None:
    connection.execute(
        "INSERT INTO meta VALUES ('epoch', ?)"
        " ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
        (epoch,),
    )


def _raise_floors(connection: sqlite3.Connection, floors: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO floors VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        floors.items(),
    )


def _remember_bad(connection: sqlite3.Connection, digest: str, code: ReasonCode) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO bad_digests"
        " SELECT ?, ?, coalesce(max(sequence), 0) + 1 FROM bad_digests",
        (digest, code),
    )
    connection.execute(
        "DELETE FROM bad_digests WHERE sequence <= (SELECT max(sequence) FROM bad_digests) - ?",
        (MAX_BAD_DIGESTS,),
    )


def _enqueue(connection: sqlite3.Connection, messages: Iterable[Message]) -> None:
    for message in messages:
        connection.execute(
            "INSERT INTO outbox (kind, topic, payload) VALUES (?, ?, ?)",
            (message.kind, message.topic, message.payload),
        )
        limit = OUTBOX_LIMITS.get(message.kind)
        if limit is not None:
            connection.execute(
                "DELETE FROM outbox WHERE kind = ? AND id IN (SELECT id FROM outbox WHERE"
                " kind = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (message.kind, message.kind, limit),
            )
