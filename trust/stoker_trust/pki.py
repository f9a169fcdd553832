"""A certificate authority: the broker, and one certificate a device.

The common name of a device's certificate is the device id, which is also its MQTT user and
client id. ``issue`` makes the key, too, which suits development; in production a device makes
its own key and ``sign`` gets a request. What was issued is kept, so that it can be revoked.
"""

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
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
_ISSUED: Final = "issued"
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})


class Authority:
    """``ca.crt``, ``ca.key`` and ``ca.crl`` in a folder, and what they signed beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def revocations(self) -> Path:
        """The list of what is revoked, for the broker."""
        return self._folder / f"{CA}.crl"

    def certificate(self, name: str) -> Path:
        """Where the certificate of a name is."""
        return self._folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Where the private key of a name is."""
        return self._folder / f"{name}.key"

    def create(self, now: datetime, *, hosts: tuple[str, ...] = LOOPBACK) -> bool:
        """Make the authority and the broker's certificate; False where there already is one."""
        if self.certificate(CA).exists():
            if not self.revocations.exists():
                self._write_revocations({}, now)
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("stoker CA")
        builder = (
            _builder(name, name, key.public_key(), now, _CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        _write_key(self.key(CA), key)
        self._write_certificate(CA, builder.sign(key, hashes.SHA256()))
        self._write_revocations({}, now)
        names = _alternative_names(hosts)
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

    def sign(
        self, name: str, request: bytes, now: datetime, *, hosts: tuple[str, ...] = ()
    ) -> bytes:
        """Certify the key of a signing request under a name that we choose, not the sender.

        Args:
            name: of the device; what the request calls itself does not count.
            request: PEM; only its public key is used.
            now: the certificate is valid from a day before.
            hosts: names and addresses, for a broker; a device has none.

        Returns:
            The certificate, as PEM. It is also kept here, and replaces an earlier one.

        Raises:
            TrustError: no authority is here, or the request can not be used.
        """
        if name == CA:
            raise TrustError(ReasonCode.BAD_REQUEST, f"{CA!r} is the name of the authority")
        usage, names = ExtendedKeyUsageOID.CLIENT_AUTH, None
        if hosts:
            usage, names = ExtendedKeyUsageOID.SERVER_AUTH, _alternative_names(hosts)
        self._certify(name, _requested_key(request), usage, now, names)
        return self.certificate(name).read_bytes()

    def revoke(self, name: str, now: datetime, *, only_superseded: bool = False) -> int:
        """Revoke all certificates of a name, or all but the last one.

        Returns:
            How many are newly revoked. ``revocations`` is for the broker then.

        Raises:
            TrustError: no authority is here, or nothing was ever issued to the name.
        """
        issued = [self._load(path) for path in sorted((self._folder / _ISSUED).glob(f"{name}@*"))]
        if not issued:
            detail = f"nothing was issued to {name!r} by the authority in {self._folder}"
            raise TrustError(ReasonCode.BAD_REQUEST, detail)
        kept = self._load(self.certificate(name)).serial_number if only_superseded else None
        revoked = self._revoked()
        known = len(revoked)
        revoked |= {
            one.serial_number: revoked.get(one.serial_number, now)
            for one in issued
            if one.serial_number != kept
        }
        self._write_revocations(revoked, now)
        return len(revoked) - known

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        now: datetime,
        names: x509.SubjectAlternativeName | None,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(self.key(name), key)
        self._certify(name, key.public_key(), usage, now, names)

    def _certify(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        now: datetime,
        names: x509.SubjectAlternativeName | None,
    ) -> None:
        authority, signer = self._open()
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
        certificate = builder.sign(signer, hashes.SHA256())
        # Kept first: what nobody can revoke must not be handed out.
        self._write_certificate(f"{_ISSUED}/{name}@{certificate.serial_number:x}", certificate)
        self._write_certificate(name, certificate)

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

    def _load(self, path: Path) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            detail = f"{path} can not be read as a certificate: {error}"
            raise TrustError(ReasonCode.MALFORMED, detail) from None

    def _revoked(self) -> dict[int, datetime]:
        if not self.revocations.exists():
            return {}
        try:
            listed = x509.load_pem_x509_crl(self.revocations.read_bytes())
        except ValueError as error:
            detail = f"{self.revocations} can not be read: {error}"
            hint = "Copy it back from the broker: whoever was revoked must stay so"
            raise TrustError(ReasonCode.MALFORMED, detail, hint=hint) from None
        return {one.serial_number: one.revocation_date_utc for one in listed}

    def _write_revocations(self, revoked: dict[int, datetime], now: datetime) -> None:
        authority, signer = self._open()
        # A broker refuses everybody once the list has expired: it lives as long as the authority.
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.subject)
            .last_update(now - _BACKDATED)
            .next_update(authority.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for serial, when in revoked.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
            builder = builder.add_revoked_certificate(entry.build())
        listed = builder.sign(signer, hashes.SHA256())
        durable.write(self.revocations, listed.public_bytes(serialization.Encoding.PEM))

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


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        parsed = x509.load_pem_x509_csr(request)
        genuine, key = parsed.is_signature_valid, parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        detail = f"not a certificate signing request in PEM: {error}"
        raise TrustError(ReasonCode.MALFORMED, detail) from None
    if not genuine:
        detail = "the request is not signed with the key it asks a certificate for"
        raise TrustError(ReasonCode.SIGNATURE, detail)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        hint = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        detail = "the request is not for an EC key on P-256 or P-384"
        raise TrustError(ReasonCode.UNSUPPORTED, detail, hint=f"Make one with: {hint}")
    return key


def _alternative_names(hosts: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(host) for host in hosts])


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
