"""The tables. A document is kept as the JSON it came as; columns are what is searched by."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Engine,
    ForeignKey,
    Index,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stoker_contract.codes import ReasonCode
from stoker_fleet.errors import FleetError

SCHEMA_VERSION: Final = 1
_BUSY_TIMEOUT_MS: Final = 10_000


class Base(DeclarativeBase):
    """All tables. Times are text, ISO 8601 in UTC."""


class Setting(Base):
    """One named number: the schema's version, and what was counted."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class Device(Base):
    """What a device last said of itself. Order keys are of the message that was kept."""

    __tablename__ = "devices"
    device: Mapped[str] = mapped_column(primary_key=True)
    reported_epoch: Mapped[int | None]
    reported_seq: Mapped[int | None]
    reported: Mapped[str | None]
    reported_at: Mapped[str | None]
    presence_epoch: Mapped[int | None]
    presence_connection: Mapped[int | None]
    online: Mapped[bool] = mapped_column(default=False)
    presence_at: Mapped[str | None]


class Forgotten(Base):
    """A device that an operator forgot, until the broker keeps nothing of it, either."""

    __tablename__ = "forgotten"
    device: Mapped[str] = mapped_column(primary_key=True)


class StatusRow(Base):
    """One status event. A device sends it again until it is acknowledged; it is kept once."""

    __tablename__ = "status_events"
    device: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    deployment_id: Mapped[str]
    generation: Mapped[int]
    document: Mapped[str]
    received_at: Mapped[str]

    __table_args__ = (Index("status_by_generation", "device", "generation"),)


class LatencyRow(Base):
    """What one engine of one device did in one window."""

    __tablename__ = "latency_windows"
    device: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    release: Mapped[str]
    document: Mapped[str]
    end: Mapped[str]
    received_at: Mapped[str]


class Rollout(Base):
    """What an operator asked for."""

    __tablename__ = "rollouts"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout_id: Mapped[str] = mapped_column(unique=True)
    release: Mapped[str]
    slot: Mapped[str]
    selector: Mapped[str]
    plan: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[str]
    finished_at: Mapped[str | None]


class RolloutDevice(Base):
    """One targeted device of a rollout: not yet assigned, skipped, or assigned a generation."""

    __tablename__ = "rollout_devices"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.rollout_id"), primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int | None]
    skipped: Mapped[str | None]
    detail: Mapped[str] = mapped_column(default="")


class DesiredRow(Base):
    """A desired state that was signed, and what the device said about it since.

    Attributes:
        inferred: the outcome is our conclusion; the device's own word replaces it.
    """

    __tablename__ = "desired"
    device: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    deployment_id: Mapped[str]
    desired: Mapped[str]
    signed: Mapped[bytes]
    issued_at: Mapped[str]
    published_at: Mapped[str | None]
    phase: Mapped[str | None]
    progress: Mapped[float | None]
    outcome: Mapped[str | None]
    inferred: Mapped[bool] = mapped_column(default=False)
    code: Mapped[str | None]
    detail: Mapped[str] = mapped_column(default="")
    measured: Mapped[str] = mapped_column(default="{}")


class RebuildRow(Base):
    """A build that a device asks for: its engine was compiled for software it no longer has.

    Attributes:
        release: whose engine that is.
        profile: of the device when it asked, which is what to build for.
        done_at: when the device served an engine of its own again.
    """

    __tablename__ = "rebuilds"
    device: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    release: Mapped[str] = mapped_column(primary_key=True)
    profile: Mapped[str]
    detail: Mapped[str]
    asked_at: Mapped[str]
    done_at: Mapped[str | None]


class Store:
    """The database of one fleet: one file, read by many processes, written by few."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _configure)
        try:
            Base.metadata.create_all(self._engine)
            _add_later_columns(self._engine)
            with self.transaction() as session:
                version = session.get(Setting, "schema_version")
                if version is None:
                    session.add(Setting(name="schema_version", value=SCHEMA_VERSION))
                elif version.value != SCHEMA_VERSION:
                    raise _other_schema(path, version.value)
        except DatabaseError as error:
            raise FleetError(ReasonCode.MALFORMED, f"{path}: {error.orig}") from None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Read and write; all of it happens or nothing, and it is durable afterwards."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()


def _add_later_columns(engine: Engine) -> None:
    """Give tables of before the columns that came later; all of those may be empty."""
    for table in Base.metadata.sorted_tables:
        there = {column["name"] for column in inspect(engine).get_columns(table.name)}
        for column in table.columns:
            if column.name in there:
                continue
            kind = column.type.compile(engine.dialect)
            change = f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"
            try:
                with engine.begin() as connection:
                    connection.exec_driver_sql(change)
            except OperationalError as error:  # another process was faster
                if "duplicate column" not in str(error.orig):
                    raise


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401  the driver's own type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # A message is acknowledged after the commit, so the commit has to survive a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _other_schema(path: Path, version: int) -> FleetError:
    detail = f"{path} has schema {version}, this version of stoker reads {SCHEMA_VERSION}"
    return FleetError(ReasonCode.UNSUPPORTED, detail)


def count(session: Session, name: str) -> None:
    """Add one to a counter."""
    row = session.get(Setting, name)
    if row is None:
        session.add(Setting(name=name, value=1))
        session.flush()
    else:
        row.value += 1


def counted(session: Session) -> dict[str, int]:
    """Everything that was counted."""
    rows = session.scalars(select(Setting).where(Setting.name != "schema_version"))
    return {row.name: row.value for row in rows}
