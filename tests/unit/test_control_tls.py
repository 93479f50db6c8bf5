"""TLS at the control port: certificates of openssl's making, renewed, mismatched, demanded."""

from __future__ import annotations

import functools
import logging
import shutil
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest

from server.config import ControlSettings
from server.control.tls import CertificateFiles, server_credentials
from server.errors import StartError
from tests.support.clients import check_health
from tests.support.control import ControlWorld, make_certificate, refused
from tests.support.serving import copy_repository


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold two self-signed certificates, an authority and a client of its."""
    made = tmp_path_factory.mktemp("tls")
    for name in ("first", "second", "authority"):
        make_certificate(made, name)
    make_certificate(made, "client", authority="authority")
    return made


def use(folder: Path, name: str, target: Path) -> None:
    """Renew target.pem and target.key, the key first."""
    for suffix in (".key", ".pem"):
        aside = target.with_suffix(suffix + ".new")
        shutil.copy(folder / f"{name}{suffix}", aside)
        aside.replace(target.with_suffix(suffix))


def settings_of(target: Path, client_ca: Path | None = None) -> ControlSettings:
    return ControlSettings(
        port=0,
        tls_certificate_file=str(target.with_suffix(".pem")),
        tls_key_file=str(target.with_suffix(".key")),
        tls_client_ca_file=str(client_ca or ""),
    )


def dial(port: int, folder: Path, trust: str, client: str = "") -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        (folder / f"{trust}.pem").read_bytes(),
        (folder / f"{client}.key").read_bytes() if client else None,
        (folder / f"{client}.pem").read_bytes() if client else None,
    )
    # Channels of the same credentials would share a connection.
    return grpc.secure_channel(
        f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)]
    )


def shown(port: int) -> str:
    """Return the certificate that a new connection gets, as PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10).strip()


def test_calls_are_encrypted_and_certificates_renewed_without_a_restart(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.control.tls")
    target = tmp_path / "server"
    use(folder, "first", target)
    world = ControlWorld(
        copy_repository(tmp_path / "repository"),
        settings_of(target),
        target=lambda port: dial(port, folder, "first"),
    )
    with world:
        port = world.port.port
        assert check_health(world.channel) == "SERVING"
        with grpc.insecure_channel(f"127.0.0.1:{port}") as bare:
            assert refused(lambda: check_health(bare)).code is grpc.StatusCode.UNAVAILABLE
        with dial(port, folder, "second") as stranger:
            assert refused(lambda: check_health(stranger)).code is grpc.StatusCode.UNAVAILABLE
        assert shown(port) == (folder / "first.pem").read_text().strip()

        # Half renewed: the former pair stays.
        shutil.copy(folder / "second.key", target.with_suffix(".key"))
        assert shown(port) == (folder / "first.pem").read_text().strip()
        assert "they do not belong together; the former certificate stays" in caplog.text

        use(folder, "second", target)
        assert shown(port) == (folder / "second.pem").read_text().strip()
        with dial(port, folder, "second") as channel:
            assert check_health(channel) == "SERVING"
        assert "was renewed" in caplog.text
        # A connection that stood before goes on.
        assert check_health(world.channel) == "SERVING"


def test_client_certificates_are_demanded_where_authorities_are_named(
    folder: Path, tmp_path: Path
) -> None:
    settings = settings_of(folder / "first", folder / "authority.pem")
    world = ControlWorld(
        copy_repository(tmp_path / "repository"),
        settings,
        target=lambda port: dial(port, folder, "first", "client"),
    )
    with world:
        assert check_health(world.channel) == "SERVING"
        for client in ("", "second"):
            with dial(world.port.port, folder, "first", client) as stranger:
                failed = refused(functools.partial(check_health, stranger))
            assert failed.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("chain", "key", "client_ca", "message"),
    [
        ("nope.pem", "first.key", None, r"nope\.pem: cannot be read: No such file"),
        ("first.pem", "nope.key", None, r"nope\.key: cannot be read: No such file"),
        ("first.pem", "second.key", None, "they do not belong together"),
        ("first.key", "first.key", None, "not a certificate chain and its unencrypted key"),
        ("first.pem", "first.pem", None, "not a certificate chain and its unencrypted key"),
        ("first.pem", "first.key", "first.key", "holds no certificates as PEM"),
        ("first.pem", "first.key", "nope.pem", r"nope\.pem: cannot be read"),
    ],
)
def test_files_that_cannot_be_used_end_the_start(
    folder: Path, chain: str, key: str, client_ca: str | None, message: str
) -> None:
    ca = None if client_ca is None else folder / client_ca
    with pytest.raises(StartError, match=message):
        CertificateFiles(folder / chain, folder / key, ca)


def test_an_encrypted_key_is_refused_and_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "locked.key"
    subprocess.run(
        [
            "openssl",
            "ec",
            "-in",
            folder / "first.key",
            "-aes256",
            "-passout",
            "pass:x",
            "-out",
            key,
        ],
        check=True,
        capture_output=True,
    )
    with pytest.raises(StartError, match="unencrypted key"):
        CertificateFiles(folder / "first.pem", key, None)


def test_no_certificate_no_tls() -> None:
    assert server_credentials(ControlSettings()) is None
