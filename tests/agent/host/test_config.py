"""``agent.toml``: what is taken, and what a person is told about the rest."""

from pathlib import Path

import pytest

from stoker_agent.config import load_config, parse_config
from stoker_agent.control.session import SessionSettings
from stoker_agent.errors import ConfigError
from stoker_agent.trust.verifier import TrustSettings

SMALL = """
[device]
id = "edge-1"
fleet = "demo"
[repository]
url = "http://127.0.0.1:8080/"
"""
FULL = """
[device]
id = "edge-1"
fleet = "demo"
labels = { site = "berlin" }
[mqtt]
host = "127.0.0.1"
port = 8883
protocol = "auto"
keepalive_s = 30
[mqtt.tls]
ca = "/etc/stoker/ca.crt"
certificate = "/etc/stoker/device.crt"
key = "/etc/stoker/device.key"
[repository]
url = "http://127.0.0.1:8080"
[trust]
image_root = "/etc/stoker/trust/image-root.json"
director_root = "/etc/stoker/trust/director-root.json"
allow_dev = false
[paths]
state_dir = "/var/lib/stoker"
run_dir = "/run/stoker"
[server]
http = "127.0.0.1:8000"
[telemetry]
interval_s = 60
[connection]
base_s = 1
cap_s = 300
boot_jitter_s = 30
"""


def refusal(text: str) -> str:
    """What a person is told."""
    with pytest.raises(ConfigError) as refused:
        parse_config(text.encode(), where="agent.toml")
    return str(refused.value)


def test_a_full_file_is_taken() -> None:
    """Every setting of the documentation is known."""
    config = parse_config(FULL.encode(), where="agent.toml")

    assert config.device.labels == {"site": "berlin"}
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.key == Path("/etc/stoker/device.key")
    endpoint = SessionSettings.of(config).endpoint
    assert (endpoint.client_id, endpoint.port) == ("edge-1", 8883)
    assert endpoint.tls is not None


def test_a_small_file_has_safe_defaults(tmp_path: Path) -> None:
    """Who names the device and the repository gets production settings for the rest."""
    path = tmp_path / "agent.toml"
    path.write_text(SMALL)

    config = load_config(path)

    full = parse_config(FULL.encode(), where="agent.toml")
    assert config.mqtt == full.mqtt.model_copy(update={"tls": None})
    for section in ("trust", "paths", "server", "telemetry", "connection", "repository"):
        assert getattr(config, section) == getattr(full, section)
    assert not config.trust.allow_dev
    assert TrustSettings.of(config).url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "[mqtt]\nkeep_alive_s = 3",
            "mqtt.keep_alive_s is not a setting; did you mean keepalive_s?",
        ),
        ("[mqtt.tls]\ncertificat = 'x'", "did you mean certificate?"),
        ("[telemetri]\n", "telemetri is not a setting; did you mean telemetry?"),
        ("[mqtt]\nzzz = 1", "known here: host, keepalive_s, port, protocol, tls"),
        ("[mqtt]\nport = 70000", "mqtt.port: Input should be less than or equal to 65535"),
        ("[mqtt]\nprotocol = '4'", "mqtt.protocol: Input should be 'auto', '5' or '3.1.1'"),
        ("[mqtt.tls]\nca = '/a'", "mqtt.tls.key is missing; add `key = …` to [mqtt.tls]"),
        ("[paths]\nstate_dir = 'state'", "paths.state_dir: write an absolute path, not 'state'"),
        ("[server]\nhttp = '8000'", 'write "127.0.0.1:8000" or "none"'),
        ("[connection]\nbase_s = 10\ncap_s = 2", "connection: write a cap_s of at least base_s"),
        ("[mqtt]\nport = 1\nport = 2", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(line: str, told: str) -> None:
    """The file, the field and what is expected are in the message."""
    text = refusal(SMALL + line)

    assert told in text
    assert text.startswith("agent.toml: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "device is missing; add a table [device]"),
        (SMALL.replace("edge-1", "Edge 1"), "device.id: String should match pattern"),
        (SMALL.replace("http://", "ftp://"), "write a URL such as https://models.example.com"),
        (
            SMALL.replace("http://", "http://me:secret@"),
            "without a query, a fragment or a password",
        ),
    ],
)
def test_the_device_and_the_repository_have_to_be_right(text: str, told: str) -> None:
    """What everything else depends on is checked before anything starts."""
    assert told in refusal(text)


def test_every_mistake_is_told_at_once() -> None:
    """Nobody has to start the agent five times to find five mistakes."""
    text = refusal(SMALL + "[mqtt]\nport = 0\n[telemetry]\ninterval_s = -1\n")

    assert len(text.splitlines()) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says which file was looked for."""
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file.*--config"):
        load_config(tmp_path / "missing.toml")


def test_bytes_that_are_no_text_are_refused() -> None:
    """A torn file is an error like any other."""
    with pytest.raises(ConfigError, match="not TOML"):
        parse_config(b"\xff\x00", where="agent.toml")
