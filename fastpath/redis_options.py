"""What a Redis store is told: addresses, TLS, the breaker's rates. Checked and resolved here.

Plain Python, run once when a store is made. Host names are resolved once, then: an address that
moves needs a new store.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from typing import NamedTuple

from fastpath.errors import StoreError

MAX_ADDRESSES = 8  # per endpoint; redis_link.pxd has the same
MAX_UNIX_PATH_BYTES = 107  # struct sockaddr_un, with its final zero


class BreakerSpec(NamedTuple):
    """When a store is no longer asked, and when it is tried again.

    Attributes
    ----------
    window_ms : int
        Length of the sliding window in which reads are counted, >= 10.
    min_reads : int
        Reads that the window must hold before the rate says anything, >= 1.
    failure_share : float
        Opens when at least this share of the window's reads failed, in (0, 1].
    cool_off_ms : int
        How long it stays open at first; doubled after every failed probe.
    max_cool_off_ms : int
        Where the doubling ends.
    enabled : bool
        False: never opens.
    """

    window_ms: int = 1000
    min_reads: int = 20
    failure_share: float = 0.5
    cool_off_ms: int = 1000
    max_cool_off_ms: int = 10_000
    enabled: bool = True

    def check(self) -> BreakerSpec:
        """Return the spec, or raise StoreError where a field is out of its range."""
        if not 10 <= self.window_ms <= 3_600_000:
            raise StoreError(f"breaker window_ms: {self.window_ms} is not within 10..3600000")
        if not 1 <= self.min_reads <= 1_000_000_000:
            raise StoreError(f"breaker min_reads: {self.min_reads} is not within 1..1000000000")
        if not 0.0 < self.failure_share <= 1.0:
            raise StoreError(
                f"breaker failure_share: {self.failure_share} is not above 0 and up to 1"
            )
        if not 1 <= self.cool_off_ms <= self.max_cool_off_ms <= 3_600_000:
            raise StoreError(
                f"breaker cool_off_ms {self.cool_off_ms} and max_cool_off_ms "
                f"{self.max_cool_off_ms}: need 1 <= cool_off_ms <= max_cool_off_ms <= 3600000"
            )
        return self


class RedisTls(NamedTuple):
    """How a connection is secured and the server is known.

    Attributes
    ----------
    ca_file : str
        PEM file of the authorities that are trusted; empty: the system's.
    certificate_file, key_file : str
        The client's own certificate chain and key (PEM), where the server asks for them. An empty
        key file: the key is in the certificate file.
    server_name : str
        The name (or numeric address) that the server's certificate must hold, also sent as SNI.
        Empty: the host of the address.
    verify : bool
        False: any certificate is accepted. For tests.
    """

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True


class Endpoint(NamedTuple):
    """A resolved address. `targets` are (family, numeric host or path, port)."""

    name: str
    host: str  # empty for a Unix socket
    targets: tuple[tuple[int, str, int], ...]


def resolve(address: str) -> Endpoint:
    """Parse "host:port", "[v6]:port" or "unix:/path" and resolve the host.

    Raises
    ------
    StoreError
        Where the address has another form, or the host is not known.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise StoreError(f"address {address!r}: need an absolute path, unix:/path")
        if len(path.encode()) > MAX_UNIX_PATH_BYTES:
            raise StoreError(
                f"address {address!r}: a Unix socket's path has up to {MAX_UNIX_PATH_BYTES} bytes"
            )
        return Endpoint(address, "", ((int(socket.AF_UNIX), path, 0),))
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    valid_port = port.isascii() and port.isdigit() and 1 <= int(port) <= 65535
    if not colon or not host or not valid_port or (":" in host and not bracketed):
        raise StoreError(f"address {address!r}: need host:port, [IPv6 address]:port or unix:/path")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StoreError(f"address {address!r}: the host cannot be resolved: {error}") from None
    targets = tuple(
        dict.fromkeys(
            (int(family), str(where[0]).partition("%")[0], int(port))
            for family, _, _, _, where in found
            if family in (socket.AF_INET, socket.AF_INET6)
        )
    )
    return Endpoint(address, host, targets[:MAX_ADDRESSES])


def is_numeric(host: str) -> bool:
    """Whether the host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_duration(name: str, value: float, lowest: float, highest: float) -> None:
    """Raise StoreError unless the duration is a number within its bounds."""
    if not math.isfinite(value) or not lowest <= value <= highest:
        raise StoreError(f"{name}: {value} is not within {lowest}..{highest}")
