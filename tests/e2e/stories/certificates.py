"""Certificates run out and are revoked: the broker shuts the door, and inference does not care."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from e2e.devices import AGENT, Device
from e2e.load import load, lost
from e2e.playbooks import SITE
from e2e.proof import Proof
from support.waiting import wait_until

IDENTITY = "etc/stoker/device.pem"
DECOMMISSION = "stoker.edge.decommission"
ROTATE = "stoker.edge.rotate_certificates"
OFFLINE_S = 90
REFUSED = "session.unreachable"
KNOCKS = 3


def expired(proof: Proof) -> None:
    """A device was in a drawer for too long; the next playbook run renews its certificate."""
    device = proof.device(2)
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        _let_expire(proof, device)
        _restart_to_be_refused(device)
        _wait_until_offline(proof, device)
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "with an expired certificate a device is refused by the broker, and goes on serving",
        lost(window),
        held=not window.failed,
    )
    ran = proof.playbooks.run(SITE, proof.wheels, "--limit", device.name)
    proof.site.fleet.wait_until_online(device.name)
    version = proof.update(device)
    proof.promise(
        "the next playbook run renews it, and updates go on",
        f"{ran}; {version} serves",
        held=not ran.failed,
    )


def revoked(proof: Proof) -> None:
    """A device is lost: its certificate is revoked while it is connected."""
    device = proof.device(1)
    others = {name: one for name, one in proof.devices.items() if one is not device}
    ran = proof.playbooks.run(DECOMMISSION, proof.wheels, devices=others, device=device.name)
    _wait_until_offline(proof, device)
    _restart_to_be_refused(device)
    proof.site.fleet.wait_until_online(*others)
    forgotten = device.name not in proof.site.fleet.known()
    served = proof.wait_until_serving(device)
    proof.promise(
        "a revoked device is thrown out of its open connection, forgotten, and can not come back",
        f"{ran}; it still serves {served.release}",
        held=not ran.failed and forgotten,
    )
    ran = proof.playbooks.run(ROTATE, proof.wheels, "--limit", device.name)
    proof.site.fleet.wait_until_online(device.name)
    proof.promise(
        "with a new key and certificate it is back",
        str(ran),
        held=not ran.failed and bool(ran.hosts),
    )


def _let_expire(proof: Proof, device: Device) -> None:
    """Replace a device's certificate by one that the authority signed, and that has run out."""
    pem = (device.node.root / IDENTITY).read_text()
    old = x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())
    authority = x509.load_pem_x509_certificate((proof.playbooks.pki / "ca.crt").read_bytes())
    key = serialization.load_pem_private_key(
        (proof.playbooks.pki / "ca.key").read_bytes(), password=None
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now - timedelta(minutes=1))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    new = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    device.node.run("sh", "-c", f"cat > /{IDENTITY}", stdin=_with_certificate(pem, new))


def _with_certificate(pem: str, certificate: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    return pem[: pem.index(begin)] + certificate + pem[pem.index(end) + len(end) :]


def _restart_to_be_refused(device: Device) -> None:
    """Restart the agent, and wait until it has knocked in vain several times."""

    def refused() -> int:
        return device.journal(AGENT).count(REFUSED)

    device.restart(AGENT)
    before = refused()
    wait_until(lambda: refused() >= before + KNOCKS, OFFLINE_S, f"{device.name} is refused")


def _wait_until_offline(proof: Proof, device: Device) -> None:
    wait_until(
        lambda: device.name not in proof.site.fleet.online(), OFFLINE_S, f"{device.name} is offline"
    )
