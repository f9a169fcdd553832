"""What devices say, in any order and any number of times, ends in the same store."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired
from stoker_contract.document import Document as AnyDocument
from stoker_contract.histogram import Histogram
from stoker_contract.reported import Get, Presence, Reported, ReportedSlot
from stoker_contract.status import Measured, Phase, StatusEvent
from stoker_contract.telemetry import LatencyWindow, Telemetry
from stoker_contract.topics import DeviceTopics
from stoker_fleet.core.assignment import RolloutPlan
from stoker_fleet.core.rollout import measure
from stoker_fleet.observer import Asked, Observer
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.latency import merged_latency
from stoker_fleet.store.rebuilds import Rebuild, wanted_rebuilds
from stoker_fleet.store.rollouts import Document, RolloutRequest, RolloutView
from stoker_fleet.store.schema import Store, counted
from support.documents import DIGEST, PROFILE, SLOT_DESIRED, TIME

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOPICS = DeviceTopics("demo", "edge-1")
OBSERVER = Observer("demo")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "fleet.db")
    yield store
    store.close()


def observe(store: Store, topic: str, document: AnyDocument | bytes) -> Asked | None:
    payload = document if isinstance(document, bytes) else document.encode()
    with store.transaction() as session:
        return OBSERVER.observe(session, topic, payload, NOW)


def counts(store: Store) -> dict[str, int]:
    with store.transaction() as session:
        return counted(session)


def reported(epoch: int, seq: int, generation: int = 0, device: str = "edge-1") -> Reported:
    return Reported(
        device=device,
        fleet="demo",
        epoch=epoch,
        seq=seq,
        observed_generation=generation,
        profile=PROFILE,
        time=TIME,
    )


def rollout(store: Store, *, generations: int = 1) -> str:
    """A rollout to edge-1 whose last generation is the one given."""
    request = RolloutRequest("digits/1.0.0", "main", "all", RolloutPlan(), ("edge-1",))
    with store.transaction() as session:
        rollout_id = rollouts.create(session, request, NOW)
        desired = Desired(
            device="edge-1",
            fleet="demo",
            deployment_id=rollout_id,
            issued=TIME,
            slots={"main": SLOT_DESIRED},
        )
        rollouts.record(session, desired, Document("edge-1", generations, b"signed"), NOW)
    return rollout_id


def event(rollout_id: str, seq: int, phase: Phase, generation: int = 1, **more: object) -> bytes:
    return StatusEvent.model_validate(
        {
            "device": "edge-1",
            "deployment_id": rollout_id,
            "generation": generation,
            "epoch": 3,
            "seq": seq,
            "phase": phase,
            "time": TIME,
            **more,
        }
    ).encode()


def view(store: Store, rollout_id: str) -> RolloutView:
    with store.transaction() as session:
        return rollouts.view(session, rollout_id)


def test_an_older_report_does_not_replace_a_newer_one(store: Store) -> None:
    """(epoch, seq) decides, not the order of arrival."""
    for epoch, seq, generation in ((2, 5, 7), (2, 4, 6), (1, 99, 5), (2, 5, 7)):
        observe(store, TOPICS.reported, reported(epoch, seq, generation))

    with store.transaction() as session:
        kept = devices.profiled(session, "edge-1")
    assert (kept.epoch, kept.seq, kept.observed_generation) == (2, 5, 7)


@pytest.mark.parametrize(
    ("said", "online"),
    [
        ([("online", 1)], True),
        ([("online", 1), ("offline", 1)], False),
        ([("online", 1), ("offline", 1), ("online", 1)], False),
        ([("online", 2), ("offline", 1)], True),
        ([("offline", 1), ("online", 2), ("offline", 1)], True),
        ([("online", 0)], True),
        ([("online", 1, 1), ("offline", 1, 1), ("online", 1, 2)], True),
        ([("online", 1, 1), ("online", 1, 2), ("offline", 1, 1)], True),
        ([("online", 1, 2), ("offline", 1, 2), ("online", 1, 1)], False),
        ([("online", 1, 9), ("online", 2, 1), ("offline", 1, 9)], True),
    ],
)
def test_a_late_will_does_not_bury_a_new_connection(
    store: Store, said: list[tuple[object, ...]], *, online: bool
) -> None:
    """The will of an earlier connection says nothing about this one, of the same process or not."""
    for one in said:
        told = dict(zip(("state", "epoch", "connection"), one, strict=False))
        observe(store, TOPICS.presence, json.dumps({"device": "edge-1", **told}).encode())

    with store.transaction() as session:
        assert devices.one_device(session, "edge-1").online is online


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_events_end_in_the_same_state_in_any_order(store: Store, order: tuple[int, ...]) -> None:
    """Reordered and repeated, the events of a deployment tell the same story."""
    rollout_id = rollout(store)
    events = [
        event(rollout_id, 1, Phase.ACCEPTED),
        event(rollout_id, 2, Phase.GOLDEN, measured=Measured(golden_score=0.5)),
        event(rollout_id, 3, Phase.GOLDEN, measured=Measured(golden_score=0.9, load_s=2.0)),
        event(rollout_id, 4, Phase.IDLE, final=True, outcome=Outcome.ROLLED_BACK,
              code=ReasonCode.PROBATION_LATENCY, detail="p99 doubled"),
    ]  # fmt: skip

    for index in (*order, *order):
        observe(store, TOPICS.status(rollout_id), events[index])

    told = view(store, rollout_id)
    device = told.devices[0]
    assert (device.outcome, device.code) == (Outcome.ROLLED_BACK, ReasonCode.PROBATION_LATENCY)
    assert (device.phase, device.detail) == (Phase.IDLE, "p99 doubled")
    assert told.measured["edge-1"] == Measured(golden_score=0.9, load_s=2.0)
    assert counts(store)["repeated_or_stale"] == 4


def test_the_first_outcome_is_the_outcome(store: Store) -> None:
    """A second final event can not turn a rollback into a success."""
    rollout_id = rollout(store)
    for seq, outcome in ((1, Outcome.ROLLED_BACK), (2, Outcome.SUCCEEDED)):
        data = event(rollout_id, seq, Phase.IDLE, final=True, outcome=outcome)
        observe(store, TOPICS.status(rollout_id), data)

    assert view(store, rollout_id).devices[0].outcome is Outcome.ROLLED_BACK


def test_who_works_on_it_was_notified(store: Store) -> None:
    """A quick device may report before the broker says that it took the desired state."""
    rollout_id = rollout(store)
    before = measure(view(store, rollout_id).devices).notified

    observe(store, TOPICS.status(rollout_id), event(rollout_id, 1, Phase.DOWNLOADING))

    assert (before, measure(view(store, rollout_id).devices).notified) == (0, 1)


def test_a_generation_that_was_overtaken_is_superseded(store: Store) -> None:
    """A device that went on to generation 2 will not speak of 1; if it does, its word counts."""
    first, second = rollout(store), rollout(store, generations=2)
    observe(store, TOPICS.status(second), event(second, 5, Phase.ACCEPTED, generation=2))

    assert view(store, first).devices[0].outcome is Outcome.SUPERSEDED

    late = event(first, 4, Phase.IDLE, final=True, outcome=Outcome.SUCCEEDED)
    observe(store, TOPICS.status(first), late)

    assert view(store, first).devices[0].outcome is Outcome.SUCCEEDED


def test_an_event_of_an_unknown_deployment_changes_no_rollout(store: Store) -> None:
    """Generation 1 of a store that was lost is not generation 1 of this one."""
    rollout_id = rollout(store)

    data = event("r1-lost", 9, Phase.IDLE, final=True, outcome=Outcome.SUCCEEDED)
    observe(store, TOPICS.status("r1-lost"), data)

    assert view(store, rollout_id).devices[0].outcome is None


def test_latency_is_merged_exactly_and_once(store: Store) -> None:
    """The percentiles of two devices are those of all their values; a repeated window is one."""
    values = {"edge-1": [1.0] * 90, "edge-2": [100.0] * 10}
    for device, times_ms in values.items():
        data = Histogram.of(int(ms * 1e6) for ms in times_ms).data()
        window = LatencyWindow(
            slot="main", digest=DIGEST, release="digits/1.0.0", total=data, requests=len(times_ms)
        )
        telemetry = Telemetry(
            device=device, epoch=1, seq=1, start=TIME, end=TIME, engines=(window,)
        )
        for _ in range(2):
            observe(store, DeviceTopics("demo", device).telemetry, telemetry)

    with store.transaction() as session:
        (merged,) = merged_latency(session)
        (one,) = merged_latency(session, device="edge-1")
    everything = Histogram.of(int(ms * 1e6) for times in values.values() for ms in times).data()
    assert merged.total == everything
    assert (merged.devices, merged.windows, merged.requests) == (2, 2, 100)
    assert one.requests == 90


def test_a_device_can_not_speak_for_another(store: Store) -> None:
    """What is said on a topic is about the device of that topic, or it is dropped."""
    observe(store, TOPICS.reported, reported(1, 1, device="edge-2"))

    assert counts(store) == {"malformed": 1}
    with store.transaction() as session:
        assert devices.all_devices(session) == ()


@pytest.mark.parametrize("name", ["epoch", "seq", "observed_generation"])
@pytest.mark.parametrize("value", [2**53, 2**63, 2**64, 10**400])
def test_numbers_that_no_database_can_hold_are_refused(store: Store, name: str, value: int) -> None:
    """A device that lies about its counters is dropped, and can not stop the controller."""
    lie = reported(1, 1).model_copy(update={name: value})

    observe(store, TOPICS.reported, lie)

    assert counts(store) == {"malformed": 1}


@pytest.mark.parametrize("name", ["epoch", "connection"])
def test_a_birth_of_a_number_that_is_too_large_is_refused(store: Store, name: str) -> None:
    """What is compared with the next birth has to fit into the database."""
    birth = Presence(device="edge-1", state="online", epoch=1).model_copy(update={name: 2**63})

    observe(store, TOPICS.presence, birth)

    assert counts(store) == {"malformed": 1}


def test_what_is_retained_of_a_forgotten_device_does_not_bring_it_back(store: Store) -> None:
    """Until the broker has let go of it; from then on a device that lives is a new one."""
    observe(store, TOPICS.reported, reported(1, 1))
    with store.transaction() as session:
        devices.forget(session, "edge-1")

    observe(store, TOPICS.reported, reported(1, 1))
    observe(store, TOPICS.presence, Presence(device="edge-1", state="offline", epoch=1))
    with store.transaction() as session:
        assert devices.all_devices(session) == ()
        devices.cleared(session, "edge-1")

    observe(store, TOPICS.reported, reported(1, 2))
    with store.transaction() as session:
        assert devices.one_device(session, "edge-1").reported is not None


def test_a_device_that_asks_is_heard(store: Store) -> None:
    """A get names the device that wants its desired state again."""
    get = Get(device="edge-1", have_generation=3)

    assert observe(store, TOPICS.get, get) == Asked("edge-1", 3)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a/b",
        "stoker/v1/demo/edge-1",
        "stoker/v1/demo/edge-1/x",
        "stoker/v1/demo/edge-1/status/r1/x",
        "stoker/v2/demo/edge-1/get",
    ],
)
def test_a_topic_of_nobody_is_counted(store: Store, topic: str) -> None:
    """A message on an unexpected topic is counted and dropped."""
    observe(store, topic, b"{}")

    assert counts(store) == {"malformed": 1}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    topic=st.sampled_from([TOPICS.reported, TOPICS.presence, TOPICS.telemetry, TOPICS.get,
                           TOPICS.status("r1"), "stoker/v1/demo/edge-1/other"]),
    payload=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["device", "epoch", "seq", "state", "phase"]), inner),
        ).map(lambda value: json.dumps(value).encode()),
    ),
)  # fmt: skip
def test_no_message_is_fatal(store: Store, topic: str, payload: bytes) -> None:
    """Whatever bytes come on whatever topic, they are stored, or counted and dropped."""
    observe(store, topic, payload)


def test_the_store_survives_being_opened_again(tmp_path: Path) -> None:
    """What was stored is there for the next process."""
    store = Store(tmp_path / "fleet.db")
    observe(store, TOPICS.presence, Presence(device="edge-1", state="online", epoch=1))
    store.close()

    again = Store(tmp_path / "fleet.db")

    with again.transaction() as session:
        assert devices.one_device(session, "edge-1").online
    again.close()


def test_a_store_of_before_gets_the_columns_that_came_later(tmp_path: Path) -> None:
    """An upgrade of the controller goes on with the database that is there."""
    path = tmp_path / "fleet.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as before:
        before.execute("ALTER TABLE devices DROP COLUMN presence_connection")

    store = Store(path)
    observe(store, TOPICS.presence, Presence(device="edge-1", state="online", epoch=1))

    with store.transaction() as session:
        assert devices.one_device(session, "edge-1").online
    store.close()


def misfit(device: str, seq: int, **slot: object) -> Reported:
    """A device whose engine was compiled for another TensorRT."""
    state = ReportedSlot.model_validate(
        {"committed_release": "photos/2.0.0", "release": "photos/2.0.0", "ready": True, **slot}
    )
    profile = PROFILE.model_copy(update={"module": "orin-nano-8gb", "tensorrt": "10.16.2"})
    update = {"slots": {"main": state}, "profile": profile}
    return reported(1, seq, device=device).model_copy(update=update)


def wanted(store: Store) -> tuple[Rebuild, ...]:
    with store.transaction() as session:
        return wanted_rebuilds(session)


def test_devices_that_were_upgraded_ask_for_a_build_until_they_have_it(store: Store) -> None:
    """One entry for all devices of a kind; it goes when the slot serves an engine of its own."""
    asking = {"degraded": True, "reason": ReasonCode.PLAN_MISMATCH, "detail": "made by 10.3.0"}
    for device in ("edge-1", "edge-2"):
        for seq in (1, 2):  # a device says it again and again
            observe(store, DeviceTopics("demo", device).reported, misfit(device, seq, **asking))

    (rebuild,) = wanted(store)
    assert (rebuild.release, rebuild.devices) == ("photos/2.0.0", ("edge-1", "edge-2"))
    assert (rebuild.hardware.module, rebuild.hardware.tensorrt) == ("orin-nano-8gb", "10.16.2")
    assert rebuild.detail == "made by 10.3.0"

    observe(store, DeviceTopics("demo", "edge-1").reported, misfit("edge-1", 3))
    assert [r.devices for r in wanted(store)] == [("edge-2",)]


def test_a_slot_that_is_degraded_for_another_reason_asks_for_nothing(store: Store) -> None:
    """And does not take a request back."""
    asking = {"degraded": True, "reason": ReasonCode.PLAN_MISMATCH}
    crashed = {"degraded": True, "reason": ReasonCode.ENGINE_CRASH_LOOP}
    observe(store, TOPICS.reported, misfit("edge-1", 1, **crashed))
    assert wanted(store) == ()

    observe(store, TOPICS.reported, misfit("edge-1", 2, **asking))
    observe(store, TOPICS.reported, misfit("edge-1", 3, **crashed))
    assert len(wanted(store)) == 1
