"""TLS of the streaming server: which key pair a connection is met with, and whom it trusts.

The files may be replaced while the daemon runs: each connection is met with what they hold then, looked at by
their times, and with what they held before as long as the new ones do not fit together. A key pair of
Crisp's own making is never on a disk.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import BadInput

log = logging.getLogger("crisp.streaming")

LIFE: Final = datetime.timedelta(days=365)
"""How long a key pair of Crisp's own making is valid; a new one is made in the last third of it."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """`certificate` and `key` in PEM, None for a pair that Crisp makes; `client_ca` None takes every client.

    `minimum` is a version of TLS, "1.2" or "1.3".
    """

    certificate: Path | None
    key: Path | None
    client_ca: Path | None
    minimum: str = "1.2"

    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


class Tls:
    """Contexts for the connections to `address`. `today` is the time as UTC."""

    def __init__(self, files: TlsFiles, *, address: str, today: Callable[[], datetime.datetime]) -> None:
        self._files = files
        self._address = address
        self._today = today
        self._context: ssl.SSLContext | None = None
        self._certificate = b""
        self._seen: tuple[object, ...] = ()
        self._renew: datetime.datetime | None = None

    def context(self) -> ssl.SSLContext:
        """What a connection that comes now is met with. Blocks for microseconds when nothing changed.

        Raises BadInput naming the file, at the first call only: later the last good one is kept.
        """
        seen = tuple(_state(path) for path in self._files.paths())
        due = self._renew is not None and self._today() >= self._renew
        if self._context is not None and seen == self._seen and not due:
            return self._context
        self._seen = seen
        try:
            self._context = self._load()
        except BadInput as error:
            if self._context is None:
                raise
            log.warning("streaming: the new TLS files are not used", extra={"error": str(error)})
        return self._context

    def certificate(self) -> bytes:
        """The server's own certificate in `context`, DER. Raises as that does."""
        self.context()
        return self._certificate

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self._files.minimum]
        context.set_alpn_protocols(["http/1.1"])
        with self._pair() as (certificate, key, named):
            try:
                context.load_cert_chain(certificate, key, password=_no_password)
                shown = _first_certificate(Path(certificate).read_text(errors="replace"))
            except (OSError, ValueError) as error:
                raise BadInput(f"streaming.tls: {named}: {_reason(error)}") from error
        authority = self._files.client_ca
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(authority)
            except OSError as error:
                raise BadInput(f"streaming.tls.client_ca {authority}: {_reason(error)}") from error
        self._certificate = shown
        return context

    @contextlib.contextmanager
    def _pair(self) -> Iterator[tuple[str, str, str]]:
        """Paths of certificate and key, and what they are called in an error."""
        if self._files.certificate is not None and self._files.key is not None:
            for name, path in (("certificate", self._files.certificate), ("key", self._files.key)):
                if not os.access(path, os.R_OK):
                    raise BadInput(f"streaming.tls.{name} {path}: does not exist or cannot be read")
            first, second = str(self._files.certificate), str(self._files.key)
            yield first, second, f"certificate {first} with key {second}"
            return
        now = self._today()
        made = self_made(self._address, socket.gethostname(), now)
        self._renew = now + LIFE * 2 / 3
        with contextlib.ExitStack() as stack:  # OpenSSL takes files only: this one is memory
            descriptor = os.memfd_create("crisp-streaming", os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            os.write(descriptor, made)
            memory = f"/proc/self/fd/{descriptor}"
            yield memory, memory, "the self-made key pair"


def self_made(address: str, host: str, now: datetime.datetime) -> bytes:
    """A key (P-256) and a certificate that it signed itself, in PEM, for an address and a host's name."""
    # Here, since most daemons never need it and it takes megabytes.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crispd streaming")])
    addresses = dict.fromkeys(ipaddress.ip_address(text) for text in (address, "127.0.0.1", "::1"))
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    with contextlib.suppress(ValueError):  # a name that is no name of DNS
        names.append(x509.DNSName(host))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([*names, *map(x509.IPAddress, addresses)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _first_certificate(text: str) -> bytes:
    """DER of the first in a PEM file, which is the server's own: those after it lead to its authority."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(begin + text.partition(begin)[2].partition(end)[0] + end)


def _state(path: Path) -> object:
    try:
        found = path.stat()  # of the file that a link leads to: Kubernetes replaces links
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted; it must not be")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}".lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error)
