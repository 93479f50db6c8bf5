"""Merge flags, environment, file and defaults into one checked tree.

Precedence: flag > environment > file > default, setting by setting. A relative path that a
file holds counts from the file's directory; any other counts from the working directory. Keys
that do not exist are refused in a file; variables of the environment that are not ours are not
looked at (orchestrators put SCOREGATE_… names of their own there).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.config.catalogue import CATALOGUE, Setting
from server.config.settings import Settings
from server.errors import ConfigError

WEB_ADDRESS = re.compile(r"https?://[^/?#\s]+([/?#]\S*)?$")
SECTIONS = {path.partition(".")[0] for path in CATALOGUE if "." in path}


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings in force, and who set each."""

    settings: Settings
    origins: Mapping[str, str]  # path -> "default", "file …", "environment …" or "flag …"


def load_settings(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Effective:
    """Read and check the settings.

    Parameters
    ----------
    file
        A TOML file, or None.
    environ
        The environment (`os.environ`), or None to look at none.
    flags
        Path of a setting -> what the command line gave: text, a list of texts, or a bool.

    Raises
    ------
    ConfigError
        The file cannot be read or parsed, a key is unknown, a value is not allowed, or two
        settings contradict each other. The message names the place and the allowed values.
    """
    values = {path: setting.default for path, setting in CATALOGUE.items()}
    origins = dict.fromkeys(CATALOGUE, "default")
    if file is not None:
        for path, value in _from_file(file):
            values[path] = value
            origins[path] = f"file {file}"
    for path, setting in CATALOGUE.items():
        if environ is not None and setting.env in environ:
            values[path] = setting.convert(environ[setting.env], setting.env, is_text=True)
            origins[path] = f"environment {setting.env}"
        if flags is not None and path in flags:
            values[path] = setting.convert(flags[path], setting.flag, is_text=True)
            origins[path] = f"flag {setting.flag}"
    tree: dict[str, object] = {name: {} for name in SECTIONS}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        target = tree[section] if section else tree
        assert isinstance(target, dict)
        target[name] = value
    settings = msgspec.convert(tree, Settings)
    _check_together(settings, origins)
    return Effective(settings, origins)


def _from_file(file: Path) -> Iterator[tuple[str, object]]:
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; TOML must be") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    for path, value in _flatten(document, file):
        setting = _find(path, file)
        value = setting.convert(value, f"{file}: {path}", is_text=False)
        if setting.kind == "path" and isinstance(value, str) and value:
            value = str(file.parent / value)
        yield path, value


def _flatten(document: Mapping[str, object], file: Path) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if key not in SECTIONS:
            yield key, value
        elif isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            raise ConfigError(f"{file}: {key}: expected a table, written [{key}]")


def _find(path: str, file: Path) -> Setting:
    if path in CATALOGUE:
        return CATALOGUE[path]
    section, _, name = path.rpartition(".")
    prefix = section + "." if section else ""
    here = [p.removeprefix(prefix) for p in CATALOGUE if p.rpartition(".")[0] == section]
    tables = [] if section else sorted(SECTIONS)
    elsewhere = [p for p in CATALOGUE if p.rpartition(".")[2] == name]
    close = difflib.get_close_matches(name, here + tables, n=1)
    if close or elsewhere:
        advice = f"did you mean {prefix + close[0] if close else elsewhere[0]}?"
    elif section:
        advice = f"known in [{section}]: {', '.join(here)}"
    else:
        advice = f"known at the top: {', '.join(here)}; tables: {', '.join(tables)}"
    raise ConfigError(f"{file}: {path}: unknown setting; {advice}")


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    control = settings.control
    protected = control.tokens_file and control.tls_certificate_file
    if not is_loopback(control.address) and not protected and not control.insecure:
        raise ConfigError(
            f"control.address ({origins['control.address']}): other machines can reach "
            f"{control.address}; that needs access tokens and TLS (control.tokens_file, "
            "control.tls_certificate_file, control.tls_key_file); use 127.0.0.1, or allow it "
            "without with --insecure-control (control.insecure = true)"
        )
    if bool(control.tls_certificate_file) != bool(control.tls_key_file):
        raise ConfigError(
            "control.tls_certificate_file and control.tls_key_file go together: set both or none"
        )
    if control.tls_client_ca_file and not control.tls_certificate_file:
        raise ConfigError(
            f"control.tls_client_ca_file ({origins['control.tls_client_ca_file']}): client "
            "certificates need TLS: set control.tls_certificate_file and control.tls_key_file"
        )
    if settings.fast.realtime and settings.fast.spin_us:
        raise ConfigError(
            f"fast.realtime ({origins['fast.realtime']}): a loop that goes before everything must "
            "sleep when it is idle: set fast.spin_us to 0, or switch fast.realtime off"
        )
    url = settings.events.webhook_url
    if url and not WEB_ADDRESS.match(url):
        raise ConfigError(
            f"events.webhook_url ({origins['events.webhook_url']}): {url!r} is no address that "
            "events can be posted to; expected http://HOST/... or https://HOST/..."
        )
    features, redis = settings.features, settings.redis
    if features.online == "lmdb" and not features.directory:
        raise ConfigError(
            f"features.online ({origins['features.online']}): lmdb needs features.directory, where "
            "`scoregate features load` writes the tables"
        )
    if redis.hedge_after_us and not redis.replica:
        raise ConfigError(
            f"redis.hedge_after_us ({origins['redis.hedge_after_us']}): there is no redis.replica "
            "to ask"
        )
