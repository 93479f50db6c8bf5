"""Records of one group in a Redis or Valkey server, written many at a time.

Rules: what `write` counts has been acknowledged by the server. Writing the same records twice
leaves what writing them once does, so whoever was interrupted writes again. A failure says how
many records had been acknowledged before it. No more than one batch is held in memory besides
what the caller passed.

How it works: a batch is a pipeline of commands that write up to COMMAND_RECORDS records each: MSET,
or a small script where records expire or older ones must not replace newer ones. Several records
per command cost a sixth of one SET per record; few enough per command keep the server, which runs
one command at a time, from delaying the reads of a scoring server. Commands of a batch that failed
for a passing reason (connection lost or refused, time-out, server loading, failing over or busy)
are sent again, after a pause that doubles.

What it does not do: no cluster (a command's keys would be on several servers), no transaction over
a batch, no removal.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server.errors import FeatureStoreError, InputError
from server.features.redis_errors import ADVICE, first_word, passes
from server.features.redis_url import parse_redis_url
from server.features.rows import check_rows, encode_rows
from server.features.writer import FeatureWriter, Group

if TYPE_CHECKING:
    import redis

DEFAULT_PREFIX = "scoregate:"
COMMAND_RECORDS = 128
COMMAND_BYTES = 64 << 10
CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
MAX_TTL_S = 1e9

# ARGV: 1 where an older record must not replace a newer one, milliseconds to live (0: for ever),
# then one record per key. A record's event time is a signed little-endian integer at byte 9;
# its halves are compared, because Lua's numbers hold 53 bits. A key of another type, or a value
# too short for a header, is no record and is replaced.
SCRIPT = """
local written = 0
for i, key in ipairs(KEYS) do
  local record = ARGV[i + 2]
  local replace = true
  if ARGV[1] == '1' then
    local stored = redis.pcall('GET', key)
    if type(stored) == 'string' and #stored >= 16 then
      local old_low, old_high = struct.unpack('<I4i4', stored, 9)
      local low, high = struct.unpack('<I4i4', record, 9)
      replace = high > old_high or (high == old_high and low >= old_low)
    end
  end
  if replace then
    if ARGV[2] == '0' then
      redis.call('SET', key, record)
    else
      redis.call('SET', key, record, 'PX', ARGV[2])
    end
    written = written + 1
  end
end
return written
"""


class Command(NamedTuple):
    """One command of a pipeline, and how many records it writes."""

    arguments: tuple[Any, ...]
    n_records: int
    is_script: bool


class RedisFeatureWriter(FeatureWriter):
    """Writes records of one group.

    Parameters
    ----------
    url : str
        See `server.features.redis_url`; options there come before the arguments here.
    group : Group
    key_prefix : str
        Stands before every key; the server that scores must be set to the same.
    ttl_s : float or None
        The server forgets a record this long after it was written. None: never.
    batch_size : int
        Records per pipeline.
    n_retries : int
        How often in a row a batch may fail for a passing reason before that is an error.

    Raises
    ------
    InputError
        An argument is wrong, or redis-py is not installed.
    FeatureStoreError
        The server cannot be reached, or refuses us.
    """

    def __init__(
        self,
        url: str,
        group: Group,
        *,
        key_prefix: str = DEFAULT_PREFIX,
        ttl_s: float | None = None,
        batch_size: int = 5000,
        n_retries: int = 5,
    ) -> None:
        target = parse_redis_url(url)
        if target.ttl_s is not None:
            ttl_s = target.ttl_s
        if ttl_s is not None and not 0.001 <= ttl_s <= MAX_TTL_S:
            raise InputError(f"ttl_s is {ttl_s}; it is 0.001 to {MAX_TTL_S:g} seconds, or none")
        if batch_size < 1 or n_retries < 0:
            raise InputError(f"batch_size {batch_size} or n_retries {n_retries} is too small")
        self._group = group
        self._shown = target.shown
        self._prefix = (key_prefix if target.key_prefix is None else target.key_prefix).encode()
        self._ttl_ms = 0 if ttl_s is None else round(ttl_s * 1000)
        self._batch_size = batch_size
        self._n_retries = n_retries
        self._fingerprint = group.fingerprint
        self._client = connect(target.client)
        self._sha = ""
        self._exchange([Command(("PING",), 0, False)], 0)

    def write(
        self,
        entity_ids: Sequence[str],
        event_time_ms: ArrayLike,
        values: ArrayLike,
        *,
        only_newer: bool = False,
    ) -> int:
        """Write a record per entity; of one that occurs more than once, the last counts.

        Parameters
        ----------
        entity_ids : sequence of str
            n ids of 1 to 256 bytes of UTF-8.
        event_time_ms : int64[n] or int
            As of when the values hold, in milliseconds since the epoch.
        values : float32[n, k]
            k is the number of the group's columns; NaN: no value. What is beyond float32 becomes
            infinite, which whoever reads it counts as missing.
        only_newer : bool
            Leave a stored record as it is where its event time is later.

        Returns
        -------
        int
            How many records were written: n, but for those that `only_newer` left.

        Raises
        ------
        InputError
            Shapes, an id, or a time that cannot be stored; batches before it have been written.
        FeatureStoreError
            The server refused or was not there; the message says how many were written before.
        """
        times, rows = check_rows(self._group, len(entity_ids), event_time_ms, values)
        n_written = 0
        for start in range(0, len(entity_ids), self._batch_size):
            stop = start + self._batch_size
            commands = list(
                self._commands(
                    entity_ids[start:stop], times[start:stop], rows[start:stop], only_newer
                )
            )
            n_written += self._exchange(commands, n_written)
        return n_written

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._client.close()

    def _commands(
        self,
        entity_ids: Sequence[str],
        times: NDArray[np.int64],
        rows: NDArray[np.float32],
        only_newer: bool,
    ) -> Iterator[Command]:
        keys, records, _ = encode_rows(self._group, self._fingerprint, entity_ids, times, rows)
        keys = [self._prefix + key for key in keys]
        size = min(COMMAND_RECORDS, max(1, COMMAND_BYTES // len(records[0])))
        is_script = only_newer or self._ttl_ms > 0
        flag = "1" if only_newer else "0"
        for start in range(0, len(keys), size):
            some, theirs = keys[start : start + size], records[start : start + size]
            if is_script:
                # EVALSHA's first argument, the script's name, is put in when it is known.
                script = (len(some), *some, flag, self._ttl_ms, *theirs)
                yield Command(script, len(some), True)
            else:
                pairs: list[bytes] = [b""] * (2 * len(some))
                pairs[::2], pairs[1::2] = some, theirs
                yield Command(("MSET", *pairs), len(some), False)

    def _exchange(self, commands: list[Command], n_before: int) -> int:
        """Send commands until each is acknowledged; return how many records they wrote."""
        n_written = 0
        n_failures = 0
        while True:
            commands, n_more, error = self._once(commands)
            n_written += n_more
            if error is None:
                return n_written
            if n_failures == self._n_retries or not passes(error):
                raise self._failure(error, n_before + n_written) from error
            # Jitter: writers that were cut off together do not come back together.
            pause_s = min(FIRST_PAUSE_S * 2**n_failures, LONGEST_PAUSE_S)
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            # Progress is no row of failures.
            n_failures = 1 if n_more else n_failures + 1

    def _once(self, commands: list[Command]) -> tuple[list[Command], int, Exception | None]:
        """Send commands; return those to send again, the records written before, and why."""
        from redis.exceptions import NoScriptError, RedisError

        try:
            if not self._sha and any(command.is_script for command in commands):
                self._sha = str(self._client.script_load(SCRIPT))
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                name = ("EVALSHA", self._sha) if command.is_script else ()
                # redis-py leaves this one untyped.
                pipeline.execute_command(*name, *command.arguments)  # type: ignore[no-untyped-call]
            replies = pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            # Any of them may have been carried out; carrying them out again changes nothing.
            return commands, 0, error
        n_written = 0
        for i, (command, reply) in enumerate(zip(commands, replies, strict=True)):
            if isinstance(reply, NoScriptError):
                # The server was restarted, or its scripts flushed.
                self._sha = ""
            if isinstance(reply, Exception):
                # With those behind it, acknowledged or not: of equal ids the last has to count.
                return commands[i:], n_written, reply
            n_written += int(reply) if command.is_script else command.n_records
        return [], n_written, None

    def _failure(self, error: Exception, n_written: int) -> FeatureStoreError:
        word, text = first_word(error), str(error)
        if word.isupper() and not text.startswith(word):
            text = f"{word} {text}"
        advice = ADVICE.get(word, "")
        if not advice and passes(error):
            advice = f"tried {self._n_retries + 1} times; check that it runs and is reachable"
        return FeatureStoreError(
            f"{self._shown}: {text.rstrip('.')}{': ' if advice else ''}{advice}; {n_written:,} "
            "records were written before it (writing them again is harmless)"
        )


def connect(arguments: dict[str, Any]) -> redis.Redis:
    """Make a client of `RedisUrl.client`; it connects when it is first used."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise InputError(
            "writing to Redis needs redis-py: pip install 'scoregate[features]'"
        ) from None
    settings: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        # Version 2 is spoken by every server; retries are ours, because they count records.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if not arguments.get("ssl"):
        arguments = {name: value for name, value in arguments.items() if name != "ssl"}
    return redis.Redis(**{**settings, **arguments})
