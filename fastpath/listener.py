"""Listening sockets: addresses in, one clear error where an address cannot be had.

A listener is exclusive: SO_REUSEPORT stays off, so that a second server on the same address
fails instead of silently sharing its traffic. SO_REUSEADDR is on, which on Linux only lets a
restart take over from sockets in TIME_WAIT. A Unix socket's file is removed only when it is a
socket that nobody answers.
"""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

from fastpath.errors import ListenError

BACKLOG = 1024


def _listen_error(where: str, error: OSError, advice: str) -> ListenError:
    reason = error.strerror or str(error)
    return ListenError(error.errno or errno.EINVAL, f"cannot listen on {where}: {reason}; {advice}")


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another server has this address: stop it, or choose another port"
    if error.errno == errno.EACCES:
        return "choose a port above 1023, or a path that this user may write to"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: use one of its own, or 0.0.0.0 for all"
    return "check the address"


def open_tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP address.

    Parameters
    ----------
    host : str
        An IPv4 address, an IPv6 address (brackets allowed), or a host name, of which the
        first address is taken.
    port : int
        0 to 65535; 0 takes a free one.

    Returns
    -------
    socket.socket
        Non-blocking and listening. The caller closes it.

    Raises
    ------
    ListenError
        The address is taken, not this machine's, or not an address at all.
    """
    where = f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise ListenError(errno.EINVAL, f"cannot listen on {where}: a port is 0 to 65535")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not name:
        raise ListenError(
            errno.EINVAL, f"cannot listen on {where}: give a host, such as 127.0.0.1 or 0.0.0.0"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(
            errno.EINVAL, f"cannot listen on {where}: {error}; check the host name"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _listen_error(where, error, _advice(error)) from error
    return listener


def _remove_stale(path: Path) -> None:
    # Only a socket that refuses connections is nobody's.
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(
                errno.EEXIST,
                f"cannot listen on {path}: a file that is no socket is there; choose another path",
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _listen_error(str(path), error, _advice(error)) from error
        else:
            raise ListenError(
                errno.EADDRINUSE,
                f"cannot listen on {path}: another server answers there; stop it, or choose "
                "another path",
            )


def open_unix(path: str | Path) -> socket.socket:
    """Listen on a Unix socket.

    Parameters
    ----------
    path : str or Path
        Where the socket's file will be. A stale one is replaced.

    Returns
    -------
    socket.socket
        Non-blocking and listening. The caller closes it and removes the file.

    Raises
    ------
    ListenError
        Another server answers there, another file is there, or the path cannot be used.
    """
    place = Path(path)
    try:
        _remove_stale(place)
    except OSError as error:
        if isinstance(error, ListenError):
            raise
        raise _listen_error(str(place), error, _advice(error)) from error
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(place))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _listen_error(str(place), error, _advice(error)) from error
    return listener
