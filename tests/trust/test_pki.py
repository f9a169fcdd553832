"""Development certificates: mutual TLS works with them, and with nothing else."""

import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from stoker_trust.errors import TrustError
from stoker_trust.pki import BROKER, CA, Authority


@pytest.fixture
def authority(tmp_path: Path, now: datetime) -> Authority:
    authority = Authority(tmp_path / "pki")
    authority.create(now)
    authority.issue("edge-1", now)
    return authority


@pytest.fixture
def server(authority: Authority) -> Iterator[tuple[int, list[str]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate(BROKER), authority.key(BROKER))
    context.load_verify_locations(authority.certificate(CA))
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    names: list[str] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with closing(connection):
                try:
                    with context.wrap_socket(connection, server_side=True) as stream:
                        subject = (stream.getpeercert() or {})["subject"]
                        names.append(str(dict(pair[0] for pair in subject)["commonName"]))  # type: ignore[misc]
                        stream.sendall(b"hello")
                except (OSError, ssl.SSLError):
                    continue

    thread = threading.Thread(target=serve, name="tls-server")
    thread.start()
    yield listener.getsockname()[1], names
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connect(port: int, context: ssl.SSLContext, host: str) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as stream,
    ):
        return stream.recv(16)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_broker_learns_the_device_id_from_the_certificate(
    authority: Authority, server: tuple[int, list[str]], host: str
) -> None:
    """Mutual TLS succeeds, and the common name is the device id."""
    port, names = server
    context = ssl.create_default_context(cafile=str(authority.certificate(CA)))
    context.load_cert_chain(authority.certificate("edge-1"), authority.key("edge-1"))

    assert connect(port, context, host) == b"hello"
    assert names == ["edge-1"]


def test_a_device_without_a_certificate_is_refused(
    authority: Authority, server: tuple[int, list[str]]
) -> None:
    """Knowing the authority is not enough to speak to the broker."""
    port, names = server
    context = ssl.create_default_context(cafile=str(authority.certificate(CA)))

    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(port, context, "localhost")

    assert names == []


def test_a_device_certificate_can_not_pose_as_the_broker(
    authority: Authority, tmp_path: Path
) -> None:
    """A device's certificate is for clients only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("edge-1"), authority.key("edge-1"))
    client = ssl.create_default_context(cafile=str(authority.certificate(CA)))
    client.check_hostname = False
    ours, theirs = socket.socketpair()

    def pose() -> None:
        with closing(theirs), pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(theirs, server_side=True)

    thread = threading.Thread(target=pose, name="impostor")
    thread.start()
    with closing(ours), pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        client.wrap_socket(ours)
    thread.join()


def test_private_keys_are_private_and_nothing_is_replaced(
    authority: Authority, now: datetime
) -> None:
    """Keys are 0600; an authority or a certificate that exists is kept."""
    for name in (CA, BROKER, "edge-1"):
        assert stat.S_IMODE(authority.key(name).stat().st_mode) == 0o600
    assert not authority.create(now)
    for name in ("edge-1", CA, BROKER):
        with pytest.raises(TrustError):
            authority.issue(name, now)


def test_issuing_without_an_authority_says_what_to_run(tmp_path: Path, now: datetime) -> None:
    """A missing authority is an error with the command that makes one."""
    with pytest.raises(TrustError) as refused:
        Authority(tmp_path).issue("edge-1", now)

    assert "stoker pki init" in refused.value.hint
