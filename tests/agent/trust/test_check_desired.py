"""Deciding on the bytes of a director document, without any I/O."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, TargetFile, Timestamp

from stoker_agent.core.trust import (
    Addressee,
    CheckedDesired,
    DirectorFloors,
    check_desired,
    load_root,
    rotate_root,
)
from stoker_agent.errors import TrustError
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import MEMBER
from stoker_contract.document import MAX_DOCUMENT_BYTES
from support.tuf_repository import NOW, Fleet, digest, make_release, make_root, new_keys, sign

FLEET = Fleet()
RELEASE = make_release()
ME = Addressee("edge-1", "demo")
VALID = FLEET.desire(RELEASE, 5)


def check(
    payload: bytes,
    *,
    me: Addressee = ME,
    floors: DirectorFloors = DirectorFloors(),  # noqa: B008 - frozen
    now: datetime = NOW,
    root: Root = FLEET.director_root,
) -> CheckedDesired:
    """Check with what a device has."""
    return check_desired(payload, root, me, floors, now)


def refusal(payload: bytes, **with_: Any) -> TrustError:  # noqa: ANN401 - as check
    """The error that a document is refused with."""
    with pytest.raises(TrustError) as refused:
        check(payload, **with_)
    return refused.value


def edited(edit: Callable[[dict[str, Any]], object], payload: bytes = VALID) -> bytes:
    """A document whose JSON was changed and whose signatures were not."""
    value = json.loads(payload)
    edit(value)
    return json.dumps(value).encode()


def signed_anew(edit: Callable[[dict[str, Any]], object]) -> bytes:
    """A document that was changed and signed by the real key: a mistake of the director."""
    value = json.loads(VALID)
    edit(value["signed"])
    from securesystemslib.formats import encode_canonical  # noqa: PLC0415 - only here

    signer = FLEET.director_keys["targets"][0]
    signature = signer.sign((encode_canonical(value["signed"]) or "").encode())
    value["signatures"] = [{"keyid": signature.keyid, "sig": signature.signature}]
    return json.dumps(value).encode()


def test_a_valid_document_is_taken() -> None:
    """The desired state, its generation, its files and the hash of its bytes come out."""
    checked = check(VALID)

    assert checked.desired == FLEET.desired(RELEASE)
    assert checked.claim.generation == 5
    assert checked.payload_sha256 == digest(VALID)
    assert set(checked.files) == set(RELEASE.files)
    assert not checked.seen


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"x" * (MAX_DOCUMENT_BYTES + 1), ReasonCode.TOO_LARGE),
        (b"", ReasonCode.MALFORMED),
        (b"\xff\xfe", ReasonCode.MALFORMED),
        (b"[" * 40 + b"]" * 40, ReasonCode.MALFORMED),
        (b"[" * 60_000, ReasonCode.MALFORMED),
        (b'{"signed": {}, "signed": {}, "signatures": []}', ReasonCode.MALFORMED),
        (b"[]", ReasonCode.MALFORMED),
        (b'{"signed": {"a": 1.5}, "signatures": []}', ReasonCode.MALFORMED),
        (b'{"signed": {"a": "\\ud800"}, "signatures": []}', ReasonCode.MALFORMED),
        (b'{"signed": {}, "signatures": [{}]}', ReasonCode.MALFORMED),
        (b'{"signed": {}, "signatures": []}', ReasonCode.SIGNATURE),
    ],
    ids=lambda value: value.name if isinstance(value, ReasonCode) else value[:24].decode("latin1"),
)
def test_what_is_no_signed_document_is_refused(payload: bytes, code: ReasonCode) -> None:
    """Too large, too deep, ambiguous or meaningless bytes never reach the signature check."""
    assert refusal(payload).code is code


def test_an_unsigned_document_is_refused() -> None:
    """Without a signature nothing in the document is believed, not even whom it is for."""
    error = refusal(edited(lambda value: value.update(signatures=[])))

    assert error.code is ReasonCode.SIGNATURE
    assert error.generation is None
    assert error.deployment_id is None


def test_a_forged_signature_is_refused() -> None:
    """Somebody else's key does not count, whatever key it claims to be."""
    stranger = CryptoSigner.generate_ed25519()
    forged = FLEET.sign_desired(FLEET.desired(RELEASE), signers=[stranger])
    real_keyid = FLEET.director_keys["targets"][0].public_key.keyid
    impersonated = edited(lambda v: v["signatures"][0].update(keyid=real_keyid), forged)

    assert refusal(forged).code is ReasonCode.SIGNATURE
    assert refusal(impersonated).code is ReasonCode.SIGNATURE


@pytest.mark.parametrize("role", ["root", "snapshot", "timestamp"])
def test_a_key_of_another_role_does_not_count(role: str) -> None:
    """Only the key that may command commands, though the others are in the same root."""
    payload = FLEET.sign_desired(FLEET.desired(RELEASE), signers=FLEET.director_keys[role])

    assert refusal(payload).code is ReasonCode.SIGNATURE


def test_a_key_of_the_image_repository_does_not_count() -> None:
    """A stolen key of the build system can not command a device."""
    payload = FLEET.sign_desired(FLEET.desired(RELEASE), signers=FLEET.image_keys["targets"])

    assert refusal(payload).code is ReasonCode.SIGNATURE


def test_one_key_does_not_count_twice() -> None:
    """A threshold of two is two keys, not one key that signs twice."""
    keys = new_keys()
    keys["targets"].append(CryptoSigner.generate_ed25519())
    root = make_root(keys, 1)
    root.roles["targets"].threshold = 2
    one = FLEET.sign_desired(FLEET.desired(RELEASE), signers=keys["targets"][:1])
    twice = edited(lambda v: v["signatures"].append(v["signatures"][0]), one)
    both = FLEET.sign_desired(FLEET.desired(RELEASE), signers=keys["targets"])

    assert refusal(one, root=root).code is ReasonCode.SIGNATURE
    assert refusal(twice, root=root).code is ReasonCode.MALFORMED
    assert check(both, root=root).claim.generation == 1


def test_signed_metadata_of_another_type_is_refused() -> None:
    """A timestamp that the right key signed is still no desired state."""
    payload = sign(Timestamp(version=9, expires=NOW), *FLEET.director_keys["targets"])

    assert refusal(payload).code is ReasonCode.MALFORMED


@pytest.mark.parametrize("me", [Addressee("edge-2", "demo"), Addressee("edge-1", "other")])
def test_a_document_for_another_device_is_refused(me: Addressee) -> None:
    """Neither another device's document nor another fleet's is taken, or answered."""
    error = refusal(VALID, me=me)

    assert error.code is ReasonCode.WRONG_DEVICE
    assert error.deployment_id is None


def test_an_older_generation_is_refused() -> None:
    """A replayed document changes nothing, and the status says which it was."""
    error = refusal(VALID, floors=DirectorFloors(6, digest(b"six")))

    assert error.code is ReasonCode.STALE_GENERATION
    assert (error.generation, error.deployment_id) == (5, "rollout-1")


def test_the_same_document_again_is_recognised_even_when_it_has_expired() -> None:
    """What was accepted stays accepted; expiry blocks new documents only."""
    floors = DirectorFloors(5, digest(VALID))

    assert check(VALID, floors=floors, now=NOW + timedelta(days=400)).seen


def test_two_documents_of_one_generation_are_an_alarm() -> None:
    """Same generation and other bytes means that somebody else signs too."""
    other = FLEET.desire(RELEASE, 5, deployment_id="rollout-2")
    error = refusal(other, floors=DirectorFloors(5, digest(VALID)))

    assert error.code is ReasonCode.EQUIVOCATION
    assert error.deployment_id == "rollout-2"


def test_an_expired_document_is_refused() -> None:
    """After its expiry a document that was held back is worth nothing."""
    assert refusal(VALID, now=NOW + timedelta(days=8)).code is ReasonCode.EXPIRED


def test_order_of_refusals_tells_nothing_before_the_signature() -> None:
    """A document that is wrong in every way is refused for its signature."""
    wrong = FLEET.sign_desired(
        FLEET.desired(RELEASE, device="edge-2"),
        signers=[CryptoSigner.generate_ed25519()],
        lifetime=timedelta(days=-1),
        targets={},
    )

    assert refusal(wrong, floors=DirectorFloors(9, "")).code is ReasonCode.SIGNATURE


def test_a_document_from_the_future_schema_is_refused_by_name() -> None:
    """A schema this device does not know is UNSUPPORTED, not MALFORMED."""

    def newer(signed: dict[str, Any]) -> None:
        desired = json.loads(signed[MEMBER])
        signed[MEMBER] = json.dumps({**desired, "schema_version": 2})

    error = refusal(signed_anew(newer))

    assert error.code is ReasonCode.UNSUPPORTED
    assert error.generation == 5


def test_a_document_without_a_desired_state_is_refused() -> None:
    """Bare targets metadata commands nothing."""
    assert refusal(signed_anew(lambda signed: signed.pop(MEMBER))).code is ReasonCode.MALFORMED


def test_files_that_are_asked_for_have_to_be_signed() -> None:
    """A desired state can not name a file that the signed targets do not, or name otherwise."""
    desired = FLEET.desired(RELEASE)
    path, ref = next(iter(desired.files().items()))
    other = {
        each.path: TargetFile(each.length, {"sha256": each.digest}, each.path)
        for each in desired.files().values()
    }
    absent = {name: target for name, target in other.items() if name != path}
    longer = {**other, path: TargetFile(ref.length + 1, {"sha256": ref.digest}, path)}
    swapped = {**other, path: TargetFile(ref.length, {"sha256": digest(b"evil")}, path)}

    for targets in (absent, longer, swapped):
        error = refusal(FLEET.sign_desired(desired, 5, targets=targets))
        assert error.code is ReasonCode.MIX_AND_MATCH
        assert error.deployment_id == "rollout-1"


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(VALID) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_means_the_same(position: int, bit: int) -> None:
    """No single bit of a document can be changed to say something else."""
    flipped = bytearray(VALID)
    flipped[position] ^= 1 << bit
    try:
        checked = check(bytes(flipped))
    except TrustError:
        return
    assert checked.desired == FLEET.desired(RELEASE)
    assert checked.claim.generation == 5


def json_values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Small JSON values."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    """The way to every part of a JSON value."""
    if not isinstance(value, dict | list):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path for key, part in items for path in ((*here, key), *paths(part, (*here, key)))]


@settings(max_examples=200, deadline=None)
@given(where=st.sampled_from(paths(json.loads(VALID))), value=json_values(st.floats()))
def test_a_mutated_document_raises_our_error_only(where: tuple[Any, ...], value: object) -> None:
    """Whatever is put in place of any part, nothing but TrustError comes out."""

    def mutate(document: dict[str, Any]) -> None:
        *parents, last = where
        parent: Any = document
        for key in parents:
            parent = parent[key]
        parent[last] = value

    with suppress(TrustError):
        check(edited(mutate))


@settings(max_examples=150, deadline=None)
@given(member=st.text(max_size=200) | json_values(st.nothing()))
def test_a_signed_mistake_raises_our_error_only(member: object) -> None:
    """Even the director itself can not crash a device with what it signs."""
    with pytest.raises(TrustError):
        check(signed_anew(lambda signed: signed.update({MEMBER: member})))


@settings(max_examples=150, deadline=None)
@given(where=st.sampled_from(paths(json.loads(VALID)["signed"])), value=json_values(st.nothing()))
def test_signed_metadata_of_any_shape_raises_our_error_only(
    where: tuple[Any, ...], value: object
) -> None:
    """Nor with metadata that python-tuf would not make."""

    def mutate(signed: dict[str, Any]) -> None:
        *parents, last = where
        parent: Any = signed
        for key in parents:
            parent = parent[key]
        parent[last] = value

    with suppress(TrustError):
        check(signed_anew(mutate))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_our_error_only(payload: bytes) -> None:
    """The error boundary holds for anything a broker may send."""
    with pytest.raises(TrustError):
        check(payload)


def test_a_root_is_followed_to_the_next_version() -> None:
    """A root that both the old and the new keys have signed replaces the old one."""
    fleet = Fleet()
    first = load_root(fleet.files["director/1.root.json"])
    fleet.rotate_director_key()

    second = rotate_root(first, fleet.files["director/2.root.json"])

    assert second.signed.version == 2
    payload = fleet.desire(RELEASE)
    assert refusal(payload, root=first.signed).code is ReasonCode.SIGNATURE
    assert check(payload, root=second.signed).claim.generation == 1


def test_a_root_must_not_be_skipped_forged_or_self_appointed() -> None:
    """Version 3 after 1, strangers' roots and roots that only sign themselves are refused."""
    fleet = Fleet()
    first = load_root(fleet.files["director/1.root.json"])
    fleet.rotate_director_key()
    fleet.rotate_director_key()
    stranger = new_keys()
    own_root = make_root(stranger, 2)
    offers = {
        "skipped": fleet.files["director/3.root.json"],
        "the same": fleet.files["director/1.root.json"],
        "a stranger's": sign(own_root, *stranger["root"]),
        "signed by the old keys only": sign(own_root, *fleet.director_keys["root"]),
        "no root": VALID,
        "nothing": b"",
        "too large": b" " * 600_000,
    }

    for what, offered in offers.items():
        with pytest.raises(TrustError) as refused:
            rotate_root(first, offered)
        assert refused.value.code is ReasonCode.ROOT_CHAIN, what
        assert not refused.value.final, what


def test_a_root_needs_its_whole_threshold() -> None:
    """One of two keys does not make a root, neither the first nor the next."""
    keys = new_keys(root_keys=2)
    first = load_root(sign(make_root(keys, 1, threshold=2), *keys["root"]))
    second = make_root(keys, 2, threshold=2)

    with pytest.raises(TrustError):
        load_root(sign(make_root(keys, 1, threshold=2), keys["root"][0]))
    with pytest.raises(TrustError):
        rotate_root(first, sign(second, keys["root"][0]))
    assert rotate_root(first, sign(second, *keys["root"])).signed.version == 2
