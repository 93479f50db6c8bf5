"""Where a Redis or Valkey server is: its URL, as redis-py takes it, with options of ours.

    redis://[[user]:password@]host[:port][/database]
    rediss://...                       the same over TLS
    unix://[[user]:password@]/path[?db=1]

Options behind `?`, joined by `&`. Ours: `password_file=PATH` (its first line: a password in a URL
is seen by whoever may list processes), `key_prefix=TEXT`, `ttl_s=SECONDS`. TLS: `ssl_ca_certs`,
`ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`. Waiting: `timeout_s`.

What it does not do: no cluster, no sentinel. An address is shown without what is secret in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from server.errors import InputError

SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379
SPECIAL = "write special characters of a password as %23 and the like, or use password_file="
TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)


class RedisUrl(NamedTuple):
    """A parsed URL."""

    shown: str  # for messages: no password
    client: dict[str, Any]  # arguments of redis.Redis
    key_prefix: str | None
    ttl_s: float | None


def parse_redis_url(url: str) -> RedisUrl:
    """Read a URL.

    Raises
    ------
    InputError
        Not a URL of a Redis server, an unknown option, or a password file that cannot be read.
        No message quotes a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Python's own message quotes what it takes for the port: it may be part of a password.
        raise InputError(f"the host or port of the Redis URL cannot be read; {SPECIAL}") from None
    if parts.scheme not in SCHEMES:
        raise InputError("a Redis URL begins with redis://, rediss:// or unix:///")
    if parts.fragment:
        raise InputError(f"a Redis URL has no '#'; {SPECIAL}")
    arguments: dict[str, Any] = {}
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.hostname:
            raise InputError("a Unix socket's URL is unix:///path/to/socket, with three slashes")
        arguments["unix_socket_path"] = unquote(parts.path)
        shown = f"unix:{arguments['unix_socket_path']}"
    else:
        arguments["host"] = unquote(parts.hostname or "localhost")
        arguments["port"] = port if port is not None else DEFAULT_PORT
        arguments["ssl"] = parts.scheme == "rediss"
        shown = f"{parts.scheme}://{arguments['host']}:{arguments['port']}"
        if parts.path.strip("/"):
            arguments["db"] = _number(parts.path.strip("/"), "the database", shown)
    if parts.username:
        arguments["username"] = unquote(parts.username)
    if parts.password:
        arguments["password"] = unquote(parts.password)
    key_prefix: str | None = None
    ttl_s: float | None = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        where = f"{shown}: option {name}"
        if name == "db":
            arguments["db"] = _number(value, "the database", shown)
        elif name == "password_file":
            arguments["password"] = _password(Path(value), where)
        elif name == "key_prefix":
            key_prefix = value
        elif name == "ttl_s":
            ttl_s = _seconds(value, where)
        elif name == "timeout_s":
            arguments["socket_timeout"] = _seconds(value, where)
        elif name in TLS_OPTIONS and parts.scheme == "rediss":
            check: Callable[[str], Any] = _yes if name == "ssl_check_hostname" else str
            arguments[name] = check(value)
        else:
            raise InputError(
                f"{shown}: option {name!r} is unknown: password_file, key_prefix, ttl_s, "
                f"timeout_s, db, and with rediss:// {', '.join(TLS_OPTIONS)}"
            )
    database = arguments.get("db", 0)
    return RedisUrl(f"{shown}, database {database}", arguments, key_prefix, ttl_s)


def _number(text: str, what: str, shown: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{shown}: {what} is {text!r}; it is a number from 0")
    return int(text)


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{where} is {text!r}; it is a number of seconds above 0")
    return value


def _yes(text: str) -> bool:
    return text.lower() not in ("0", "false", "no", "off")


def _password(path: Path, where: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{where}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: {path} is not UTF-8 text") from None
    if not lines or not lines[0]:
        raise InputError(f"{where}: the first line of {path} is empty; it has to be the password")
    return lines[0]
