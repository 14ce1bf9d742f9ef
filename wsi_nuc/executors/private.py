"""Keeps other users of a machine out of a run.

It uses TLS with a certificate of its own, starts no status server, and has a scratch folder that nobody else can
write to, since Dask puts that on `sys.path`.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from distributed import Scheduler, Security, Worker

VALID_DAYS = 365


class QuietScheduler(Scheduler):  # type: ignore[misc]
    """A scheduler without the HTTP server that shows everybody what runs here."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        pass


class QuietWorker(Worker):  # type: ignore[misc]
    """A worker without the HTTP server that shows everybody what runs here."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        pass


@cache
def own_certificate() -> str:
    """This process's private key and self-signed certificate as PEM.

    Whoever has them can take part in its runs.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wsi-nuc")])
    # A machine's clock may be set back during a run.
    span = timedelta(days=VALID_DAYS)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    certificate = builder.not_valid_before(now - span).not_valid_after(now + span).sign(key, hashes.SHA256())
    texts = (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )
    return b"".join(texts).decode()


@cache
def security_with(certificate: str) -> Security:
    """Both ends of every connection must show this certificate."""
    place = _in_memory(certificate)
    return Security(
        require_encryption=True,
        tls_ca_file=place,
        tls_client_cert=place,
        tls_scheduler_cert=place,
        tls_worker_cert=place,
    )


def _in_memory(text: str) -> str:
    """The path, in this process, of a file that is not on any disk.

    If the system has no such files it is the text itself. Dask writes that, for a moment, to a folder that only
    its owner can enter.
    """
    if not hasattr(os, "memfd_create"):
        return text
    file = os.memfd_create("wsi-nuc")
    os.write(file, text.encode())
    return f"/proc/self/fd/{file}"


@cache
def scratch_folder() -> str:
    """This user's folder for the files of workers. Dask removes what dead workers left there."""
    folder = Path(tempfile.gettempdir()) / f"wsi-nuc-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
        if not ours:
            return tempfile.mkdtemp(prefix="wsi-nuc-")
    return str(folder)


def is_loopback(host: str) -> bool:
    """Whether other machines cannot reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
