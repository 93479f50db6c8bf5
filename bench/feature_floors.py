"""What the two reads of a request cost with nothing around them, on the servers' core.

Rules: the same keys in the same order as the requests ask for them: the customer's, then the
terminal's. The servers are idle meanwhile, and caches are the reads' own: in a server the kernel,
HTTP/2 and the model evict what a read left there. Nothing is subtracted for that.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.bare_gets import lmdb_gets, redis_gets
from bench.feature_peers import KEY_PREFIX
from bench.feature_store_data import CUSTOMER, TERMINAL, Sizes
from bench.key_order import Order
from bench.processes import SERVER_CORE
from fastpath.record import record_key

Pairs = list[tuple[str, str]]


class Floors:
    """Bare reads of what requests ask for.

    Parameters
    ----------
    sizes : Sizes
        Of the stores.
    pairs
        Customer and terminal of each request, by the order of keys.
    n_gets, n_calls : int
        Reads of LMDB, and calls of Redis, per measurement.
    """

    def __init__(
        self, sizes: Sizes, pairs: Mapping[Order, Pairs], n_gets: int, n_calls: int
    ) -> None:
        groups = [group.name for group, _ in sizes.groups()]
        assert groups == [CUSTOMER.name, TERMINAL.name]
        self._keys = {
            order: [
                record_key(group, x)
                for pair in chosen
                for group, x in zip(groups, pair, strict=True)
            ]
            for order, chosen in pairs.items()
        }
        self._n_gets, self._n_calls = n_gets, n_calls

    def mdb_gets_ns(self, environment: Path, order: Order) -> float:
        """Return the CPU nanoseconds of one `mdb_get`."""
        with on_server_core():
            return lmdb_gets(environment, self._keys[order], self._n_gets, order="given")[0]

    def redis_p50_us(self, address: str, depth: int) -> float:
        """Return the median microseconds of a call of `depth` pipelined GETs."""
        keys = [KEY_PREFIX.encode() + key for key in self._keys["uniform"]]
        with on_server_core():
            times_ns = redis_gets(address, keys, self._n_calls, order="given", depth=depth)
        return statistics.median(times_ns) / 1e3


@contextmanager
def on_server_core() -> Iterator[None]:
    """Run this thread on the servers' core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
