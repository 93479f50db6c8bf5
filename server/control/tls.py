"""TLS at the control port: certificates from files, read again when they change.

Rules
-----
* At the start, files that cannot be read, are not PEM or do not belong together end the process
  with a message that names them.
* Later, files that are renewed are used from the next handshake on. What is half renewed (a new
  certificate beside the old key) or broken leaves the former ones in use, and is logged once.
* Where authorities of client certificates are given, a client without one of theirs is refused.

The pair is proven with Python's own OpenSSL before gRPC sees it: gRPC's own message would be one
line in a log of its C core, and the handshakes would fail.

What it does not do: encrypted keys, revocation lists, or names from client certificates; changes
are attributed by tokens.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from server.config import ControlSettings
from server.errors import StartError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What files held, proven to fit."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


def server_credentials(settings: ControlSettings) -> grpc.ServerCredentials | None:
    """Return the credentials that settings ask for; None: no TLS.

    Raises
    ------
    StartError
        A file cannot be used.
    """
    if not settings.tls_certificate_file:
        return None
    files = CertificateFiles(
        Path(settings.tls_certificate_file),
        Path(settings.tls_key_file),
        Path(settings.tls_client_ca_file) if settings.tls_client_ca_file else None,
    )
    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.current),
        # None means "as before", which the types of grpcio do not know.
        cast(
            "Callable[[], grpc.ServerCertificateConfiguration]",
            lambda: _configuration(changed) if (changed := files.renewed()) else None,
        ),
        require_client_authentication=bool(settings.tls_client_ca_file),
    )


class CertificateFiles:
    """The files, and what of them is in use. Safe from any thread.

    Parameters
    ----------
    chain, key
        PEM files of the server.
    client_ca
        PEM file of the authorities of clients, or None.

    Raises
    ------
    StartError
        One cannot be used.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None) -> None:
        self._chain = chain
        self._key = key
        self._client_ca = client_ca
        self._reading = threading.Lock()
        self._state = self._look()
        self.current = self._read()

    def renewed(self) -> Certificates | None:
        """Return what the files hold, where that is new and fits; else None. Never raises."""
        if self._look() == self._state:
            return None
        with self._reading:
            state = self._look()
            if state == self._state:
                return None
            self._state = state
            try:
                found = self._read()
            except StartError as error:
                log.error("%s; the former certificate stays in use", error)
                return None
            if found == self.current:
                return None
            self.current = found
        log.info("certificate %s was renewed", self._chain)
        return found

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_state(path) for path in (self._chain, self._key, self._client_ca) if path]

    def _read(self) -> Certificates:
        found = Certificates(
            chain=_bytes_of(self._chain),
            key=_bytes_of(self._key),
            client_ca=None if self._client_ca is None else _bytes_of(self._client_ca),
        )
        self._prove(found)
        return found

    def _prove(self, found: Certificates) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _in_memory(found.chain) as chain, _in_memory(found.key) as key:
            try:
                # An empty password: OpenSSL would otherwise ask for one at the terminal.
                context.load_cert_chain(chain, key, password="")
            except (ssl.SSLError, ValueError) as error:
                if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                    why = "they do not belong together"
                else:
                    why = (
                        "not a certificate chain and its unencrypted key, as PEM "
                        f"({getattr(error, 'reason', None) or error})"
                    )
                raise StartError(
                    f"control.tls_certificate_file {self._chain} and control.tls_key_file "
                    f"{self._key}: {why}"
                ) from None
        if found.client_ca is not None:
            try:
                context.load_verify_locations(cadata=found.client_ca.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise StartError(
                    f"control.tls_client_ca_file {self._client_ca}: holds no certificates as PEM "
                    f"({getattr(error, 'reason', None) or error})"
                ) from None


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(found.key, found.chain)], root_certificates=found.client_ca
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from None


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Yield a path to bytes that are in no file system: OpenSSL proves the very bytes read."""
    descriptor = os.memfd_create("scoregate-pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
