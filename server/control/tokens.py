"""The tokens file: who may call the control port, and in which role.

Rules
-----
* A token is 256 random bits, shown once. The file keeps its SHA-256: passwords need a slow, salted
  hash because they can be guessed; 2^256 values cannot.
* The file is TOML, one `[[token]]` table each; `scoregate token` writes it, people may edit it.
  Names are unique: changes are attributed to them.
* It is written aside, fsynced and renamed, with mode 0600. One that others could write to is
  refused, because whoever writes it may do everything; one that others can read is only warned
  about, since hashes give nothing away.
* A server looks at the file's state with every call, and reads it again when that has changed. A
  file that has gone or is broken leaves the former tokens in force, and is logged once.

What it does not do: expire tokens, or know users; a token is revoked by removing it.
"""

from __future__ import annotations

import enum
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from server.errors import InputError

PREFIX = "sgt_"  # so that scanners for leaked secrets can know one
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
MAX_FILE_BYTES = 1 << 20
HEADER = (
    "# Access tokens of Scoregate's control port, as SHA-256. `scoregate token` writes this file;\n"
    "# servers read it again when it changes.\n"
)

log = logging.getLogger(__name__)


class Role(enum.IntEnum):
    """What a caller may do; each may do what the lesser ones may."""

    READ = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The name that people write."""
        return self.name.lower()


class Token(Struct, frozen=True, forbid_unknown_fields=True):
    """One token, without its secret."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN)]
    role: Annotated[str, Meta(pattern=r"^(read|operate|admin)$")]
    created: str  # RFC 3339, UTC
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

    @property
    def rank(self) -> Role:
        """The role, comparable."""
        return Role[self.role.upper()]


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    token: tuple[Token, ...] = ()


def hash_of(secret: str) -> str:
    """Return what the file keeps of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_token(name: str, role: str) -> tuple[Token, str]:
    """Return a new token and its secret.

    Raises
    ------
    InputError
        Not a name.
    """
    if re.match(NAME_PATTERN, name) is None or name.endswith("\n"):
        raise InputError(
            f"name {name!r}: 1 to 64 letters, digits, '.', '_', '@' and '-', the first a letter or "
            "a digit"
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Token(name, role, created, hash_of(secret)), secret


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read and check a tokens file.

    Raises
    ------
    InputError
        Not there, not readable, writable by others, not TOML, or not of this form.
    """
    try:
        # O_NONBLOCK: a FIFO must not hang the reader.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        advice = "; `scoregate token new` makes one" if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"tokens file {path}: cannot be read: {error.strerror}{advice}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"tokens file {path}: not a regular file")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"tokens file {path}: others may write to it (mode {stat.S_IMODE(mode):04o}), and so "
            "give themselves access: chmod 600"
        )
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"tokens file {path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        tokens = msgspec.convert(tomllib.loads(data.decode("utf-8")), _Document).token
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"tokens file {path}: {error}") from None
    for what in ("name", "sha256"):
        seen: set[str] = set()
        for token in tokens:
            value = getattr(token, what)
            if value in seen:
                raise InputError(f"tokens file {path}: {what} {value} stands there twice")
            seen.add(value)
    return tokens


def write_tokens(path: Path, tokens: Sequence[Token]) -> None:
    """Write a tokens file: aside, fsynced, renamed, mode 0600.

    Raises
    ------
    InputError
        It cannot be written.
    """
    tables = [
        f'\n[[token]]\nname = "{t.name}"\nrole = "{t.role}"\ncreated = "{t.created}"\n'
        f'sha256 = "{t.sha256}"\n'
        for t in tokens
    ]
    aside: str | None = None
    try:
        target = path.resolve()
        # mkstemp gives mode 0600.
        descriptor, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(HEADER + "".join(tables))
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(target)
        aside = None
        with _directory(target.parent) as directory:
            os.fsync(directory)
    except OSError as error:
        raise InputError(f"tokens file {path}: cannot be written: {error.strerror}") from None
    finally:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)


def change_tokens(
    path: Path, change: Callable[[tuple[Token, ...]], Sequence[Token]], *, create: bool = False
) -> None:
    """Read, change and write a tokens file, while no other `scoregate token` does.

    Parameters
    ----------
    path
        The file.
    change
        Returns the new tokens for the present ones.
    create
        A file that is not there counts as empty.

    Raises
    ------
    InputError
        It cannot be read or written, or what `change` raises.
    """
    try:
        with _directory(path.resolve().parent) as directory:
            # On the directory: the file itself is replaced.
            fcntl.flock(directory, fcntl.LOCK_EX)
            tokens = () if create and not path.exists() else read_tokens(path)
            write_tokens(path, change(tokens))
    except OSError as error:
        raise InputError(f"tokens file {path}: {error.strerror}") from None


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class TokenFile:
    """The tokens in force, as a file says. Safe from any thread.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading = threading.Lock()
        self._state = self._look()
        self._tokens = read_tokens(path)
        self._warn()

    def find(self, secret: str) -> Token | None:
        """Return the token with a secret, or None."""
        self._follow()
        wanted = hash_of(secret)
        found = None
        for token in self._tokens:
            # All of them, in constant time each: how long it takes tells nothing.
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        return found

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)

    def _follow(self) -> None:
        if self._look() == self._state:
            return
        with self._reading:
            state = self._look()
            if state == self._state:
                return
            # Remembered before it is read: what changes meanwhile is read again.
            self._state = state
            try:
                self._tokens = read_tokens(self._path)
            except InputError as error:
                log.error("%s; the former tokens stay in force", error)
                return
            log.info("tokens file %s: %d tokens", self._path, len(self._tokens))
            self._warn()

    def _warn(self) -> None:
        mode = stat.S_IMODE(self._path.stat().st_mode) if self._path.exists() else 0o600
        if mode & 0o077:
            log.warning("tokens file %s: mode %04o; 0600 is enough", self._path, mode)
        if not self._tokens:
            log.warning(
                "tokens file %s: no tokens; every call is refused until `scoregate token new`",
                self._path,
            )
