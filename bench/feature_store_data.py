"""Stores of features to measure with: a million customers and 200,000 terminals.

Rules: what is stored depends on the sizes and SEED only, so that two stores of the same sizes hold
the same bytes, and a reader can check what it read. Ids and groups are the fraud handbook's: per
customer the number and mean amount of transactions, per terminal number and share of frauds, over
1, 7 and 30 days.

How it works: records are made in chunks and go through `server.features`, as anybody's would. An
LMDB store is kept in `var/bench` and made again when sizes or recipe change.

What it does not do: values have the shape of real ones, not their distribution; nothing is trained
on them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.key_order import Order, indices
from fastpath.record import record_key
from fastpath.spec import GroupSpec

FOLDER = Path("var/bench")
SEED = 4
RECIPE = 1  # of `chunks` and columns: another one makes another store
CHUNK = 50_000
EVENT_TIME_MS = 1_532_000_000_000
DAYS = (1, 7, 30)


def _columns(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{name}_{days}d", "numeric") for days in DAYS for name in names)


CUSTOMER = GroupSpec("customer", "customer", _columns("customer_n", "customer_mean_amount"))
TERMINAL = GroupSpec("terminal", "terminal", _columns("terminal_n", "terminal_risk"))


class Sizes(NamedTuple):
    """How many entities a store holds."""

    n_customers: int = 1_000_000
    n_terminals: int = 200_000

    def groups(self) -> list[tuple[GroupSpec, int]]:
        """Return each group with its number of entities."""
        return [(CUSTOMER, self.n_customers), (TERMINAL, self.n_terminals)]


class Chunk(NamedTuple):
    """Some entities of one group."""

    entity_ids: list[str]
    event_time_ms: NDArray[np.int64]
    values: NDArray[np.float32]


def entity_id(index: int) -> str:
    """Return the id of one entity: a handbook's id is a number."""
    return str(index)


def chunks(group: GroupSpec, n_entities: int) -> Iterator[Chunk]:
    """Make the records of a group, in the order of their numbers."""
    for start in range(0, n_entities, CHUNK):
        n = min(CHUNK, n_entities - start)
        rng = np.random.default_rng([SEED, RECIPE, group.fingerprint, start])
        values = rng.gamma(2.0, 20.0, (n, len(group.columns))).astype(np.float32)
        times = EVENT_TIME_MS - rng.integers(0, 3_600_000, n)
        yield Chunk([entity_id(i) for i in range(start, start + n)], times, values)


def fill(url: str, sizes: Sizes, say: Callable[[str], None] = lambda _: None) -> dict[str, float]:
    """Write both groups into a store.

    Returns
    -------
    dict
        Records per second of each group, by its name: the writer's time alone, without making
        the values.
    """
    from server.features import open_writer

    rates: dict[str, float] = {}
    for group, n_entities in sizes.groups():
        spent_ns = 0
        with open_writer(url, group) as writer:
            for chunk in chunks(group, n_entities):
                started_ns = time.perf_counter_ns()
                writer.write(chunk.entity_ids, chunk.event_time_ms, chunk.values)
                spent_ns += time.perf_counter_ns() - started_ns
            started_ns = time.perf_counter_ns()
        # What a writer puts off until it is closed is a part of writing.
        spent_ns += time.perf_counter_ns() - started_ns
        rates[group.name] = n_entities / (spent_ns / 1e9)
        say(f"{n_entities:,} records of {group.name}: {rates[group.name]:,.0f} a second")
    return rates


def prepare_lmdb(sizes: Sizes, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of an LMDB store of these sizes, made if it is not there."""
    name = f"features-{RECIPE}-{sizes.n_customers}-{sizes.n_terminals}"
    folder = FOLDER / name
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(f"lmdb:{folder}", sizes, say)
        done.touch()
    return folder


def keys(group: GroupSpec, n_entities: int, prefix: bytes = b"") -> list[bytes]:
    """Return the keys of a group's entities, in the order of their numbers."""
    return [prefix + record_key(group.name, entity_id(i)) for i in range(n_entities)]


def pairs(
    sizes: Sizes, n: int, order: Order, *, seed: int, exponent: float = 1.0
) -> list[tuple[str, str]]:
    """Draw the (customer, terminal) of `n` requests; the two are independent."""
    customers, terminals = (
        indices(n_entities, n, order, seed=seed + i, exponent=exponent).tolist()
        for i, (_, n_entities) in enumerate(sizes.groups())
    )
    return [(entity_id(a), entity_id(b)) for a, b in zip(customers, terminals, strict=True)]
