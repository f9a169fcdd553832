"""Names: nothing that could become another topic or another path."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.names import DeploymentId, Sha256, Slug, TargetPath, Version
from stoker_contract.topics import DeviceTopics, fleet_filter, split

HOSTILE = ("", ".", "..", "a/..", "../a", "/a", "a/", "a//b", "a\n", "a\x00", "a b", "é", "a\u2028")
TOPIC_WILDCARDS = ("+", "#", "a+", "a/#")


def accepts(shape: Any, value: str) -> bool:  # noqa: ANN401  an annotated type
    try:
        TypeAdapter[str](shape).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("value", [*HOSTILE, *TOPIC_WILDCARDS, "a/b", "A", "-a", "a-", "a" * 65])
def test_a_slug_can_forge_neither_topic_nor_path(value: str) -> None:
    """No separator, wildcard, upward step, control character or trailing newline."""
    assert not accepts(Slug, value)


@pytest.mark.parametrize("value", ["a", "edge-1", "x86-64-v3", "a.b_c", "0", "a" * 64])
def test_ordinary_names_are_slugs(value: str) -> None:
    """What people call their devices is allowed."""
    assert accepts(Slug, value)


@pytest.mark.parametrize(
    "value", [*HOSTILE, "a", "a/../b", "a/.b", "a/b/c/d/e/f", "a/b\\c", "a/~b"]
)
def test_a_target_path_stays_below_its_folder(value: str) -> None:
    """A path of the image repository is relative and never goes upwards."""
    assert not accepts(TargetPath, value)


def test_the_paths_of_a_release_are_target_paths() -> None:
    """``model/version/file`` as the builder writes it."""
    assert accepts(TargetPath, "photos/2.0.0+build.7/x86-64-vnni-int8.golden.npz")


@pytest.mark.parametrize("shape", [Version, DeploymentId])
@pytest.mark.parametrize("value", [value for value in HOSTILE if value])
def test_versions_and_deployments_are_single_names(shape: object, value: str) -> None:
    """They become parts of topics and paths as well."""
    assert not accepts(shape, value)


@pytest.mark.parametrize("value", ["AB" * 32, "ab" * 31, "ab" * 33, "ab" * 32 + "\n", "xy" * 32])
def test_a_digest_has_one_spelling(value: str) -> None:
    """Digests are compared as text, so there is exactly one way to write each."""
    assert not accepts(Sha256, value)


def test_topics_name_fleet_and_device() -> None:
    """One writer per topic, and taking a topic apart gives back what it was made of."""
    topics = DeviceTopics("demo", "edge-1")
    assert topics.desired == "stoker/v1/demo/edge-1/desired"
    assert topics.notice == "stoker/v1/demo/notice"
    assert split(topics.status("d-1")) == ("demo", "edge-1", "status/d-1")
    assert fleet_filter("demo", "reported") == "stoker/v1/demo/+/reported"
    own = [topics.desired, topics.get, topics.reported, topics.presence, topics.telemetry]
    assert len({*own, topics.notice, topics.status("d-1")}) == 7


@pytest.mark.parametrize(
    "topic", ["", "stoker", "stoker/v1/demo/edge-1", "stoker/v2/a/b/c", "a/b/c/d/e"]
)
def test_a_foreign_topic_is_refused(topic: str) -> None:
    """What is no device topic is refused with our error."""
    with pytest.raises(ContractError) as refusal:
        split(topic)
    assert refusal.value.code is ReasonCode.MALFORMED
