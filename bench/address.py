"""Addresses to talk to: `host:port`, `[ipv6]:port` or `unix:/path`, as the kernel wants them."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from bench.errors import LoadInputError

LONGEST_PATH = 107


class Address(NamedTuple):
    """A resolved address."""

    family: int
    sockaddr: bytes
    authority: str  # what the requests' `:authority` says


def parse(text: str) -> Address:
    """Resolve an address; a name is looked up once, its first address is taken.

    Raises
    ------
    LoadInputError
        The text is no address, or the name is unknown.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").encode()
        if not 0 < len(path) <= LONGEST_PATH or b"\0" in path:
            raise LoadInputError(
                f"{text!r} is no socket's path: 1 to {LONGEST_PATH} bytes after `unix:`"
            )
        return Address(
            socket.AF_UNIX, struct.pack("=H", socket.AF_UNIX) + path + b"\0", "localhost"
        )
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise LoadInputError(f"{text!r} is no address: write host:port or unix:/path")
    if not 0 < int(port) < 65536:
        raise LoadInputError(f"{text!r}: a port is a number from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LoadInputError(f"{text!r}: the host cannot be resolved: {error}") from None
    # "localhost" is both; servers more often listen on IPv4 alone than on IPv6 alone.
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    number = struct.pack(">H", int(port))
    if family == socket.AF_INET:
        packed = socket.inet_aton(str(where[0])) + bytes(8)
        return Address(family, struct.pack("=H", family) + number + packed, text)
    plain, _, _ = str(where[0]).partition("%")
    flow, scope = (int(x) for x in where[2:4])
    packed = struct.pack(">I", flow) + socket.inet_pton(family, plain) + struct.pack("=I", scope)
    return Address(family, struct.pack("=H", family) + number + packed, text)
