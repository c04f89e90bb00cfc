"""A certificate authority for tests, and certificates that it has signed, as files in PEM format."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Files(NamedTuple):
    """Where a certificate and its private key are."""

    certificate: Path
    key: Path


class Authority:
    """`certificate` is the file that has to be trusted for the certificates that it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        is_authority = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._write(name, self._builder(name, self._key), self._key, is_authority).certificate

    def sign(self, name: str, *, address: str = "127.0.0.1", expires_in: timedelta = DAY) -> Files:
        """Write a certificate for a server at this address, which is one for a client as well."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        return self._write(name, self._builder(name, key, expires_in), key, addresses)

    def _builder(
        self, name: str, key: ec.EllipticCurvePrivateKey, expires_in: timedelta = DAY
    ) -> x509.CertificateBuilder:
        expires_at = datetime.now(UTC) + expires_in
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=_name(name),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=expires_at - 7 * DAY,
            not_valid_after=expires_at,
        )

    def _write(
        self,
        name: str,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
    ) -> Files:
        is_critical = isinstance(extension, x509.BasicConstraints)
        signed = builder.add_extension(extension, critical=is_critical).sign(self._key, hashes.SHA256())
        files = Files(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
