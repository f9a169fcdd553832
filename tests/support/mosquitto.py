"""A real mosquitto on the loopback, certificates for it, and somebody who listens to it."""

import datetime as dt
import ipaddress
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from stoker_cli.broker.ports import free_port
from support.waiting import wait_until

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class CertificateFiles:
    """A CA, the broker's certificate and one client's."""

    ca: Path
    broker_certificate: Path
    broker_key: Path
    client_certificate: Path
    client_key: Path


def make_certificates(folder: Path, client: str) -> CertificateFiles:
    """Make a CA and what it signs: the broker for 127.0.0.1, and ``client`` by common name."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test CA", ca_key, None)
    _write(folder, "ca", ca, ca_key)
    for name, common_name in (("broker", "localhost"), ("client", client)):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder, name, _certificate(common_name, key, (ca, ca_key)), key)
    return CertificateFiles(
        folder / "ca.crt",
        folder / "broker.crt",
        folder / "broker.key",
        folder / "client.crt",
        folder / "client.key",
    )


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signer = issuer[1] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / f"{name}.key").write_bytes(pem)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """One broker, which can be killed and started again with what it had kept on disk."""

    def __init__(
        self, folder: Path, *, certificates: CertificateFiles | None = None, lines: str = ""
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        tls = (
            f"cafile {certificates.ca}\ncertfile {certificates.broker_certificate}\n"
            f"keyfile {certificates.broker_key}\nrequire_certificate true\n"
            "use_identity_as_username true\n"
            if certificates
            else "allow_anonymous true\n"
        )
        (folder / "mosquitto.conf").write_text(
            f"user root\npersistence true\npersistence_location {folder}/\n"
            # Saved at every change, so that a kill loses nothing that was acknowledged.
            "autosave_on_changes true\nautosave_interval 1\n"
            f"log_dest file {folder}/mosquitto.log\n"
            f"listener {self.port} 127.0.0.1\n{tls}{lines}"
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen([program, "-c", str(self.folder / "mosquitto.conf")])
        wait_until(lambda: listens(self.port), what="mosquitto listens")

    def kill(self) -> None:
        """End it without notice."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; fine if it is not running."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it keep its connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(timeout=10)
            self._process = None


@contextmanager
def running_mosquitto(
    folder: Path, *, certificates: CertificateFiles | None = None, lines: str = ""
) -> Iterator[Mosquitto]:
    """A broker that ends with the block. Skips the test where mosquitto is not installed."""
    if shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").exists():
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(folder, certificates=certificates, lines=lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@dataclass(frozen=True)
class Heard:
    """A message as an observer got it."""

    topic: str
    payload: bytes
    retain: bool


class Observer:
    """The other end: hears everything on a broker, and can publish."""

    def __init__(self, port: int, *, certificates: CertificateFiles | None = None) -> None:
        self.heard: list[Heard] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311
        )
        if certificates:
            self._client.tls_set(
                str(certificates.ca),
                str(certificates.client_certificate),
                str(certificates.client_key),
            )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the observer could not subscribe"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the acknowledgement."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def payloads(self, topic: str) -> list[bytes]:
        """What came on a topic, in order."""
        return [message.payload for message in tuple(self.heard) if message.topic == topic]

    def _on_connect(self, client: paho.Client, *_: Any) -> None:  # noqa: ANN401 - paho's signature
        client.subscribe("#", qos=1)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, bytes(message.payload), message.retain))
