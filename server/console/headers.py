"""What every answer of the console says to the browser, and whom it answers.

Rules: nothing but our own style, script and data is loaded, nothing is framed, sent or remembered.

A web page elsewhere could have its own name resolve to this machine (DNS rebinding), and read a
port that asks for no token. Such requests carry the foreign name as their Host. A sidecar that
listens on loopback only, as it does unless told otherwise, is therefore answered for an address or
`localhost` alone; one that was opened to a network is known by names that only its operator knows,
and whoever opened it decided who may read it.
"""

from __future__ import annotations

import ipaddress

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
LOCAL_NAMES = ("localhost", "localhost.")


def is_loopback(address: str) -> bool:
    """Whether a configured address can be reached from this machine alone."""
    if address.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def is_ours(host: str | None) -> bool:
    """Whether a Host header names an address, or this machine, and not a name that anybody gave.

    Parameters
    ----------
    host
        "127.0.0.1:9464", "[::1]:9464", "localhost"; None where there is none (HTTP/1.0).
    """
    if not host:
        return True  # no browser leaves it out
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name in LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
