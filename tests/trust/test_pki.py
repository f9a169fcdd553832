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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stoker_contract.codes import ReasonCode
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


def request_for(name: str) -> bytes:
    """A signing request, as a device makes it: the key stays there."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revoked(authority: Authority) -> set[int]:
    listed = x509.load_pem_x509_crl(authority.revocations.read_bytes())
    ca = x509.load_pem_x509_certificate(authority.certificate(CA).read_bytes())
    assert listed.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    return {one.serial_number for one in listed}


def test_a_request_gets_the_name_that_we_choose(authority: Authority, now: datetime) -> None:
    """Whatever a device calls itself, its certificate is for the name it was enrolled under."""
    pem = authority.sign("edge-2", request_for("controller"), now)
    made = x509.load_pem_x509_certificate(pem)

    assert made.subject.rfc4514_string() == "CN=edge-2"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not authority.key("edge-2").exists()


@pytest.mark.parametrize("junk", [b"", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"\xff" * 9])
def test_a_request_that_is_none_is_refused(
    authority: Authority, now: datetime, junk: bytes
) -> None:
    """Nothing is signed or written, and the error has a code."""
    with pytest.raises(TrustError) as refused:
        authority.sign("edge-2", junk, now)

    assert refused.value.code is ReasonCode.MALFORMED
    assert not authority.certificate("edge-2").exists()


def test_a_request_for_another_kind_of_key_says_how_to_make_one(
    authority: Authority, now: datetime
) -> None:
    """A key on an unusual curve is refused with the command for a good one."""
    key = ec.generate_private_key(ec.SECP256K1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TrustError) as refused:
        authority.sign("edge-2", pem, now)

    assert refused.value.code is ReasonCode.UNSUPPORTED
    assert "openssl genpkey" in refused.value.hint


def test_revoking_a_name_revokes_all_it_ever_had(authority: Authority, now: datetime) -> None:
    """After a rotation the old ones can go alone; later all, and twice is once."""
    serials = [
        x509.load_pem_x509_certificate(
            authority.sign("edge-1", request_for("x"), now)
        ).serial_number
        for _ in range(2)
    ]
    assert revoked(authority) == set()
    assert authority.revoke("edge-1", now, only_superseded=True) == 2  # one from the fixture
    assert serials[0] in revoked(authority)
    assert serials[1] not in revoked(authority)
    assert authority.revoke("edge-1", now) == 1
    assert authority.revoke("edge-1", now) == 0
    assert set(serials) < revoked(authority)


def test_the_list_of_revoked_never_ends_before_the_authority(
    authority: Authority, now: datetime
) -> None:
    """A broker refuses everybody once its list has expired."""
    listed = x509.load_pem_x509_crl(authority.revocations.read_bytes())
    ca = x509.load_pem_x509_certificate(authority.certificate(CA).read_bytes())

    assert listed.next_update_utc == ca.not_valid_after_utc
    with pytest.raises(TrustError, match="nothing was issued"):
        authority.revoke("edge-9", now)
