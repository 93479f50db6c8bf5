"""What a Redis server's refusals mean: which ones pass by themselves, and what to do about others.

A refusal begins with a word in capitals (https://redis.io/docs/latest/develop/reference/protocol-spec/,
"simple errors"). redis-py is imported only when there is an error of its own to look at.
"""

from __future__ import annotations

# Answers that pass by themselves, by their first word.
PASSING = ("LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS")
ADVICE = {
    "OOM": "the server has no memory left: raise its maxmemory or let records expire (ttl_s)",
    "READONLY": "this server is a replica: write to its primary",
    "NOAUTH": "it wants a password: add it to the URL, or password_file=",
    "WRONGPASS": "user name or password are wrong",
    "NOPERM": "the user needs the commands MSET, GET, SET, EVALSHA and SCRIPT LOAD on these keys",
    "MISCONF": "the server cannot save its data to disk and refuses writes: see its log",
    "MOVED": "this is a cluster, which is not supported: name a single server",
    "CROSSSLOT": "this is a cluster, which is not supported: name a single server",
}
# Classes of redis-py for some of these words.
CLASSES = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "AuthenticationError": "NOAUTH",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "TryAgainError": "TRYAGAIN",
}


def first_word(error: Exception) -> str:
    """Return the word that a server's refusal begins with, such as OOM."""
    # redis-py cuts the word off for errors that it has a class for; since 7 it keeps it apart.
    word = getattr(error, "status_code", None) or CLASSES.get(type(error).__name__)
    return str(word or str(error).split(" ", 1)[0])


def passes(error: Exception) -> bool:
    """Tell whether the same command may succeed soon."""
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        ConnectionError,  # noqa: A004 - redis-py's name
        NoScriptError,
        TimeoutError,  # noqa: A004
    )

    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, ConnectionError | TimeoutError | NoScriptError | OSError):
        return True
    return first_word(error) in PASSING
