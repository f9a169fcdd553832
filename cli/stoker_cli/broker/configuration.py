"""What mosquitto is told: pure text, so that it can be tested and reviewed as such."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_cli.broker.ports import LOOPBACK
from stoker_contract.topics import PREFIX

CONTROLLER: Final = "controller"
"""The common name of the controller's certificate, and so its user name at the broker."""

# A document has at most 64 KiB; this leaves room for the topic and MQTT 5 properties.
MAX_PACKET_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The broker's certificate and key, and the authority that signed all client certificates."""

    ca: Path
    certificate: Path
    key: Path


def access_list() -> str:
    """Who may do what, by certificate name: a device has only what is its own.

    One writer per topic: a device can neither write its desired state nor anything of another.
    """
    written = ("get", "reported", "status/#", "presence", "telemetry")
    lines = [
        f"user {CONTROLLER}",
        f"topic readwrite {PREFIX}/#",
        "",
        f"pattern read {PREFIX}/+/%u/desired",
        f"pattern read {PREFIX}/+/notice",
        *(f"pattern write {PREFIX}/+/%u/{what}" for what in written),
    ]
    return "\n".join(lines) + "\n"


def mosquitto_configuration(
    directory: Path, port: int, *, tls: TlsFiles | None, user: str | None
) -> str:
    """The configuration file. ``user`` is who mosquitto is to be when it is started as root."""
    lines = [
        "per_listener_settings false",
        f"listener {port} {LOOPBACK}",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "persistence true",
        f"persistence_location {directory}/",
        # Without both, what was queued since the last save is lost when the broker is killed.
        "autosave_on_changes true",
        "autosave_interval 1",
        f"log_dest file {directory / 'mosquitto.log'}",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
    ]
    if user:
        lines.append(f"user {user}")
    if tls is None:
        lines.append("allow_anonymous true")
    else:
        lines += [
            f"cafile {tls.ca}",
            f"certfile {tls.certificate}",
            f"keyfile {tls.key}",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
            "tls_version tlsv1.2",
            f"acl_file {directory / 'acl'}",
        ]
    return "\n".join(lines) + "\n"
