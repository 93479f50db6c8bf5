"""Redis servers as the online store's tests need them: passwords, TLS, pauses, restarts.

with StoreServer("--requirepass", "secret") as server:
    store = RedisStore(server.unix, password="secret")
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import redis

from tests.support.redis_server import RedisServer, free_port


class Certificates(NamedTuple):
    """PEM files of an authority, and what it signed for "localhost" / 127.0.0.1 and a client."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    """Make an authority and two certificates that it signed, with OpenSSL's command."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"),
        *("-subj", "/CN=test authority"),
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            *("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={name}"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "names"),
        )
    return Certificates(
        folder / "ca.pem",
        *(folder / f"{name}{end}" for name in ("server", "client") for end in (".pem", ".key")),
    )


class StoreServer(RedisServer):
    """A server with a Unix socket and a port; the arguments are redis-server's."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(*arguments, tcp=True)

    @property
    def unix(self) -> str:
        """Its Unix socket, as RedisStore takes it."""
        return f"unix:{self.socket}"

    @property
    def tcp(self) -> str:
        """Its port, as RedisStore takes it."""
        return f"127.0.0.1:{self.port}"

    def client(self, **options: Any) -> Any:
        """Return redis-py's client of its Unix socket, which the caller closes."""
        return redis.Redis(unix_socket_path=self.socket, **options)

    def put(self, key: str, value: bytes, **options: Any) -> None:
        """Set one key, by redis-py."""
        with self.client(**options) as client:
            client.set(key, value)

    def pause(self) -> None:
        """Stop the process where it stands; its connections stay open."""
        self.signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the process where it stands: a paused one does not go on first."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; show what it logged where the test failed."""
        if error is not None:
            print((self.folder / "log").read_text(errors="replace"))
        super().__exit__(kind, error, trace)


class TlsServer(StoreServer):
    """A server whose port speaks TLS; a client's certificate is asked for."""

    def __init__(self, files: Certificates, *, clients: str = "optional") -> None:
        self.tls_port = free_port()
        super().__init__(
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", clients),
            *("--tls-cert-file", str(files.server), "--tls-key-file", str(files.server_key)),
            *("--tls-ca-cert-file", str(files.authority)),
        )
