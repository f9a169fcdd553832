"""What the doctor asks others: sockets, certificates, roots of trust, broker and repository."""

import json
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import DownloadError

from stoker_agent.config import Config
from stoker_agent.trust.fetch import BoundedFetcher, FetchLimits

CONNECT_S: Final = 3.0
SOON: Final = timedelta(days=30)
QUICK: Final = FetchLimits(connect_s=CONNECT_S, read_s=CONNECT_S, total_s=10.0, budget_s=10.0)
INFERENCE_SOCKET: Final = "inference.sock"
MAX_TIMESTAMP_BYTES: Final = 64 * 1024
_ALIVE: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found out.

    Attributes:
        advice: what to do; empty when it is well.
        still_works: the trouble is only to come.
    """

    found: str
    advice: str = ""
    still_works: bool = False


def inference_socket(config: Config) -> Answer:
    """Whether applications on this device are answered."""
    path = config.paths.run_dir / INFERENCE_SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(str(path))
            connection.sendall(_ALIVE)
            answer = connection.recv(64)
    except PermissionError:
        advice = "join the group stoker-clients, or ask as root"
        return Answer(f"{path} may not be used by this user", advice)
    except OSError as error:
        advice = "systemctl start stoker-server.socket stoker-server.service"
        return Answer(f"{path}: {error}", advice)
    if not answer.startswith(b"HTTP/1.1 200"):
        return Answer(f"{path} answers {answer[:32]!r}", "systemctl restart stoker-server")
    return Answer(f"{path} answers")


def roots(config: Config) -> Answer:
    """Whether both roots of trust are here and whole."""
    trouble = []
    for path in (config.trust.image_root, config.trust.director_root):
        try:
            kind = json.loads(path.read_bytes())["signed"]["_type"]
        except OSError as error:
            trouble.append(f"{path}: {error.strerror}")
        except (ValueError, KeyError, TypeError):
            trouble.append(f"{path} is no root (zero bytes after a power cut?)")
        else:
            if kind != "root":
                trouble.append(f"{path} is {kind!r}, not a root")
    if trouble:
        return Answer("; ".join(trouble), "provision them again: without them nothing is accepted")
    return Answer("both roots are here")


def certificate(config: Config) -> Answer:
    """Whether the device's certificate is its own, and for how long."""
    tls = config.mqtt.tls
    if tls is None:
        return Answer("none: the connection to the broker is plain TCP")
    try:
        made = x509.load_pem_x509_certificate(_certificate_pem(tls.certificate))
        ssl.create_default_context().load_cert_chain(tls.certificate, tls.key)
    except FileNotFoundError as error:
        advice = "the service has its credentials while it runs: start it, or enrol the device"
        return Answer(f"{error.filename or tls.certificate} is missing", advice)
    except (OSError, ValueError) as error:
        advice = "enrol the device again: key and certificate do not work together"
        return Answer(f"{tls.certificate}: {error}", advice)
    return _judge(made, config.device.id)


def _certificate_pem(path: Path) -> bytes:
    # The key may be in the same file.
    pem = path.read_bytes()
    return pem[max(pem.find(b"-----BEGIN CERTIFICATE"), 0) :]


def _judge(made: x509.Certificate, device: str) -> Answer:
    names = [str(n.value) for n in made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    now, end = datetime.now(UTC), made.not_valid_after_utc
    renew = "run the playbook rotate_certificates for this device"
    if names != [device]:
        advice = "enrol the device again, or mend [device] id"
        return Answer(f"is for {', '.join(names)}, and this is {device}", advice)
    if now < made.not_valid_before_utc:
        advice = "the clock is wrong: see the finding about it"
        return Answer(f"begins at {made.not_valid_before_utc:%Y-%m-%d}, which is to come", advice)
    if now >= end:
        return Answer(f"ended at {end:%Y-%m-%d}: the broker refuses this device", renew)
    found = f"good until {end:%Y-%m-%d}"
    return Answer(found, renew, still_works=True) if end - now < SOON else Answer(found)


def broker(config: Config) -> Answer:
    """Whether the broker is there and accepts our certificate."""
    mqtt = config.mqtt
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        with socket.create_connection((mqtt.host, mqtt.port), timeout=CONNECT_S) as raw:
            if mqtt.tls is None:
                return Answer(f"{where} answers, without TLS")
            context = ssl.create_default_context(cafile=str(mqtt.tls.ca))
            context.load_cert_chain(mqtt.tls.certificate, mqtt.tls.key)
            with context.wrap_socket(raw, server_hostname=mqtt.host) as secured:
                return _after_handshake(secured, where)
    except ssl.SSLCertVerificationError as error:
        advice = "the broker is not who [mqtt] host says, or the clock is wrong"
        return Answer(f"{where}: {error.verify_message}", advice)
    except OSError as error:
        advice = "check [mqtt] in the configuration, the network, and the certificate"
        return Answer(f"{where}: {error}", advice)


def _after_handshake(secured: ssl.SSLSocket, where: str) -> Answer:
    # With TLS 1.3 a refused certificate shows only when something is read; a broker that took it
    # waits for our CONNECT instead.
    secured.settimeout(1.0)
    try:
        refused = not secured.recv(1)
    except TimeoutError:
        refused = False
    except (ssl.SSLError, ConnectionError):
        refused = True
    if refused:
        advice = "the certificate may be revoked: ask whoever runs the fleet, or enrol again"
        return Answer(f"{where} refuses our certificate", advice)
    return Answer(f"{where} answers with {secured.version()}")


def repository(config: Config) -> Answer:
    """Whether the image repository is there and fresh; what runs here does not depend on it."""
    url = f"{config.repository.url}/metadata/timestamp.json"
    try:
        data = BoundedFetcher(QUICK).download_bytes(url, MAX_TIMESTAMP_BYTES)
        signed: dict[str, Any] = json.loads(data)["signed"]
        ends = datetime.fromisoformat(str(signed["expires"]))
    except DownloadError as error:
        advice = "check [repository] url and the network; what runs here is not affected"
        return Answer(str(error), advice)
    except (ValueError, KeyError, TypeError):
        return Answer(f"{url} is no signed timestamp", "check [repository] url")
    if ends <= datetime.now(UTC):
        advice = "on the controller's machine: stoker repository refresh (its timer has stopped?)"
        return Answer(f"{url} ended at {ends:%Y-%m-%d %H:%M}", advice)
    return Answer(f"{config.repository.url} is fresh until {ends:%Y-%m-%d %H:%M} UTC")
