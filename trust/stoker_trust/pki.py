"""A certificate authority for development: the broker, and one certificate a device.

The common name of a device's certificate is the device id, which is also its MQTT user and
client id. In production a device makes its own key and sends a request; this makes both.
"""

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stoker_contract.codes import ReasonCode
from stoker_trust import durable
from stoker_trust.errors import TrustError

CA: Final = "ca"
BROKER: Final = "broker"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_CA_LIFETIME: Final = timedelta(days=3650)
_LEAF_LIFETIME: Final = timedelta(days=397)
# A device may come up with a clock that lags behind.
_BACKDATED: Final = timedelta(days=1)


class DevAuthority:
    """``ca.crt`` and ``ca.key`` in a folder, and what they signed beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def certificate(self, name: str) -> Path:
        """Where the certificate of a name is."""
        return self._folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Where the private key of a name is."""
        return self._folder / f"{name}.key"

    def create(self, now: datetime, *, hosts: tuple[str, ...] = LOOPBACK) -> bool:
        """Make the authority and the broker's certificate; False where there already is one."""
        if self.certificate(CA).exists():
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("stoker development CA")
        builder = (
            _builder(name, name, key.public_key(), now, _CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        _write_key(self.key(CA), key)
        self._write_certificate(CA, builder.sign(key, hashes.SHA256()))
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        self._issue(BROKER, ExtendedKeyUsageOID.SERVER_AUTH, now, names)
        return True

    def issue(self, device: str, now: datetime) -> None:
        """Make key and certificate of a device (or of the controller).

        Raises:
            TrustError: there is no authority here, or the name is taken.
        """
        if device in {CA, BROKER} or self.certificate(device).exists():
            detail = f"{self.certificate(device)} is there already, and is not replaced"
            raise TrustError(ReasonCode.BAD_REQUEST, detail)
        self._issue(device, ExtendedKeyUsageOID.CLIENT_AUTH, now, None)

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        now: datetime,
        names: x509.SubjectAlternativeName | None,
    ) -> None:
        authority, signer = self._open()
        key = ec.generate_private_key(ec.SECP256R1())
        public_key = key.public_key()
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = (
            _builder(_name(name), authority.subject, public_key, now, _LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(identifier, critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        _write_key(self.key(name), key)
        self._write_certificate(name, builder.sign(signer, hashes.SHA256()))

    def _open(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            authority = x509.load_pem_x509_certificate(self.certificate(CA).read_bytes())
            key = serialization.load_pem_private_key(self.key(CA).read_bytes(), password=None)
        except FileNotFoundError as error:
            detail = f"{error.filename} is missing"
            hint = "Make a certificate authority with: stoker pki init"
            raise TrustError(ReasonCode.ROOT_CHAIN, detail, hint=hint) from None
        except ValueError as error:
            detail = f"the authority in {self._folder} can not be read: {error}"
            raise TrustError(ReasonCode.MALFORMED, detail) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TrustError(ReasonCode.UNSUPPORTED, f"{self.key(CA)} is no EC key")
        return authority, key

    def _write_certificate(self, name: str, certificate: x509.Certificate) -> None:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        durable.write(self.certificate(name), pem)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    durable.write(path, pem, mode=durable.SECRET_MODE)
