"""What it takes to decide which arm a key is sent to: nanoseconds of CPU, without a request.

A decision is what the engine makes of a routing key: hash, override or bucket, arm. Keys differ and
are shuffled; they lie one after the other, as text in a request lies in the cache already.
"""

from __future__ import annotations

import time

import numpy as np

from bench.results import Spread
from bench.rollout_models import Versions
from fastpath.plan import Plan, PlanArm, PlanModel
from fastpath.routing import BucketTable
from fastpath.routing_probe import route_many
from server.bundle import load_model, read_bundle

N_OVERRIDES = (0, 1_000)
N_CUSTOMERS = 100_000
ROUNDS = 15


def customer_keys(n_keys: int) -> list[bytes]:
    """Return keys like those of the benchmarks' requests: 14 bytes."""
    chosen = np.random.default_rng(0).integers(0, N_CUSTOMERS, n_keys)
    return [b"customer-%05d" % i for i in chosen]


def long_keys(n_keys: int) -> list[bytes]:
    """Return keys of 32 hexadecimal digits, as UUIDs without dashes are."""
    return [number.hex().encode() for number in _random_bytes(n_keys)]


def _random_bytes(n_keys: int) -> list[bytes]:
    whole = np.random.default_rng(1).bytes(16 * n_keys)
    return [whole[i : i + 16] for i in range(0, len(whole), 16)]


def two_arms(versions: Versions, n_overrides: int) -> Plan:
    """Return a plan of one model with two arms, 90 % and 10 %, and so many keys pinned."""
    loaded = load_model(read_bundle(versions.repository / "bench" / "1"))
    arms = tuple(
        PlanArm(name, "1", loaded.sha256, loaded.model, loaded.schema, slot=0)
        for name in ("champion", "canary")
    )
    table = BucketTable.from_weights(b"bench", [9_000, 1_000])
    pinned = {f"customer-{97 * i % N_CUSTOMERS:05d}": 1 for i in range(n_overrides)}
    return Plan(1, [PlanModel("bench", arms, table, overrides=pinned)])


def decision_ns(plan: Plan, keys: list[bytes]) -> list[float]:
    """Return the nanoseconds of a decision, for each of several rounds over all keys."""
    text, ends = b"".join(keys), np.cumsum([len(key) for key in keys], dtype=np.int64)
    found = []
    for _ in range(ROUNDS):
        started_ns = time.thread_time_ns()
        route_many(plan, "bench", text, ends)
        found.append((time.thread_time_ns() - started_ns) / len(keys))
    return found


def measure(versions: Versions, n_keys: int) -> dict[str, Spread]:
    """Return what a decision takes, by length of the key and number of overrides."""
    found = {}
    for length, keys in (("14", customer_keys(n_keys)), ("32", long_keys(n_keys))):
        for n_overrides in N_OVERRIDES:
            plan = two_arms(versions, n_overrides)
            name = f"routing_ns_{length}_byte_keys_{n_overrides}_overrides"
            found[name] = Spread.of(decision_ns(plan, keys))
    return found
