"""Signing what is posted, so that a receiver knows who sent it and when.

    Scoregate-Signature: t=1795480009,v1=<64 hexadecimal digits>

v1 is HMAC-SHA256 with the shared secret over the decimal digits of t, a full stop and the body's
bytes. t is inside, so whoever records a request cannot send it again later: receivers refuse what
is older than a few minutes. docs/events.md has the ten lines that verify it.
"""

from __future__ import annotations

import hmac
import logging
import os
import stat
from pathlib import Path

from server.errors import StartError

HEADER = "Scoregate-Signature"
MAX_SECRET_BYTES = 4096

log = logging.getLogger(__name__)


def sign(secret: bytes, body: bytes, time_s: int) -> str:
    """Return the header's value for a body that is sent at `time_s`, seconds since the epoch."""
    digest = hmac.digest(secret, f"{time_s}.".encode() + body, "sha256")
    return f"t={time_s},v1={digest.hex()}"


def read_secret(path: Path) -> bytes:
    """Return the secret that a file holds, without white space around it.

    Raises
    ------
    StartError
        It cannot be read, is empty or far too long.
    """
    where = f"events.webhook_secret_file: {path}"
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            secret = stream.read(MAX_SECRET_BYTES + 1).strip()
    except OSError as error:
        raise StartError(f"{where} cannot be read: {error.strerror}") from None
    if not secret:
        raise StartError(f"{where} is empty; `openssl rand -hex 32` makes a secret")
    if len(secret) > MAX_SECRET_BYTES:
        raise StartError(f"{where} is longer than {MAX_SECRET_BYTES} bytes: no secret of ours")
    if mode & stat.S_IROTH:
        log.warning("%s: everybody on this machine can read the secret; chmod 600 mends it", where)
    return secret
