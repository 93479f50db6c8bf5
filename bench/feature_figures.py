"""What the runs of the features benchmark come to: the keys of `features.json`, and its promises.

Differences and ratios are taken within a repetition, then their median. `added` is what a stored
request costs more than the dense one, `bare` what its two reads cost with nothing around them;
the promise "dense + 1.4 x bare" is kept where added / bare is at most 1.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.results import Spread, Target, ratios

if TYPE_CHECKING:
    from bench.features import Found

BUDGET_MS = 5.0  # of a group that does not say another
MAX_ADDED_TO_BARE = 1.4
MAX_REDIS_TO_DENSE = 2.5
MAX_ADDED_TO_GET = 1.5
MAX_OVER_BUDGET_MS = 1.0
MIN_BROKEN_TO_LMDB = 0.9
MIN_LOAD_PER_S = 300_000
A_MILLION = 1_000_000

Values = dict[str, Any]


def summary(found: Found) -> tuple[Values, list[Target]]:
    """Turn the runs into figures and promises."""
    values: Values = {"shape": _shape(found)}
    targets: list[Target] = []
    for part in (_lmdb, _redis, _paused, _broken, _loads):
        more, promised = part(found)
        values |= more
        targets += promised
    values["peers"] = found.peers
    values["valid"] = not found.reasons
    values["invalid_reasons"] = found.reasons
    values["runs"] = [run.to_json() for runs in found.runs.values() for run in runs]
    return values, targets


def _shape(found: Found) -> Values:
    plan = found.plan
    return {
        "features": "15: 3 of the request, 6 of the customer, 6 of the terminal",
        "customers": plan.entities.n_customers,
        "terminals": plan.entities.n_terminals,
        "different_messages": plan.n_messages,
        "message_bytes_dense": found.runs["offered", "lmdb_dense"][0].load["message_bytes"],
        "message_bytes_stored": found.runs["offered", "lmdb_uniform"][0].load["message_bytes"],
        "connections": 8,
        "streams": 4,
        "offered_calls_per_s_lmdb": plan.lmdb_per_s,
        "offered_calls_per_s_redis": plan.redis_per_s,
        "offered_calls_per_s_paused": plan.paused_per_s,
        "offered_calls_per_s_paused_before_breaker": plan.unbroken_per_s,
        "read_budget_ms": BUDGET_MS,
        "cores": "scoregate, bare reads and loading on core 0; load generator and Redis on core 1",
    }


def _added(found: Found, step: str, subject: str, dense: str, quantity: str) -> list[float]:
    stored = found.values(step, subject, quantity)
    return [a - b for a, b in zip(stored, found.values(step, dense, quantity), strict=True)]


def _lmdb(found: Found) -> tuple[Values, list[Target]]:
    values: Values = {}
    targets = []
    for step, prefix in (("offered", ""), ("closed", "closed_loop_")):
        dense = found.values(step, "lmdb_dense", "cpu_us_per_call")
        values[f"{prefix}cpu_us_per_call_lmdb_dense"] = Spread.of(dense)
        for order in ("uniform", "zipf"):
            subject = f"lmdb_{order}"
            stored = found.values(step, subject, "cpu_us_per_call")
            # Among the kernel, HTTP/2 and the model, which evict what a read left in the cache;
            # with the clock that times one read in 64.
            inside = [2 * us for us in found.values(step, subject, "read_us")]
            added = _added(found, step, subject, "lmdb_dense", "cpu_us_per_call")
            bare = found.figures[f"bare_mdb_gets_us_per_call_{order}"]
            share = ratios(added, bare)
            values |= {
                f"{prefix}cpu_us_per_call_{subject}": Spread.of(stored),
                f"{prefix}cpu_ratio_{subject}_to_dense": ratios(stored, dense),
                f"{prefix}added_cpu_us_per_call_{subject}": Spread.of(added),
                f"{prefix}added_cpu_ratio_{subject}_to_bare_gets": share,
                f"{prefix}added_cpu_ratio_{subject}_to_reads_in_server": ratios(added, inside),
            }
            if step == "offered":
                values[f"bare_mdb_gets_us_per_call_{order}"] = Spread.of(bare)
                values[f"reads_us_per_call_in_server_{subject}"] = Spread.of(inside)
                name = f"added_cpu_ratio_{subject}_to_bare_gets"
                targets.append(Target(name, share.median, "<=", MAX_ADDED_TO_BARE))
    for form in ("dense", "uniform"):
        p50 = found.values("single", f"lmdb_{form}", "p50_us")
        values[f"latency_p50_us_lmdb_{form}"] = Spread.of(p50)
    return values, targets


def _redis(found: Found) -> tuple[Values, list[Target]]:
    stored = found.values("offered", "redis_uniform", "cpu_us_per_call")
    dense = found.values("offered", "redis_dense", "cpu_us_per_call")
    cpu = ratios(stored, dense)
    added = _added(found, "single", "redis_uniform", "redis_dense", "p50_us")
    bare = {depth: found.figures[f"bare_redis_get_p50_us_depth_{depth}"] for depth in (1, 2)}
    to_get = ratios(added, bare[1])
    values = {
        "cpu_us_per_call_redis_dense": Spread.of(dense),
        "cpu_us_per_call_redis": Spread.of(stored),
        "cpu_ratio_redis_to_dense": cpu,
        "latency_p50_us_redis_dense": Spread.of(found.values("single", "redis_dense", "p50_us")),
        "latency_p50_us_redis": Spread.of(found.values("single", "redis_uniform", "p50_us")),
        "added_p50_us_redis": Spread.of(added),
        "bare_redis_get_p50_us": Spread.of(bare[1]),
        "bare_redis_two_gets_p50_us": Spread.of(bare[2]),
        "added_p50_ratio_redis_to_bare_get": to_get,
        "added_p50_ratio_redis_to_bare_two_gets": ratios(added, bare[2]),
    }
    return values, [
        Target("cpu_ratio_redis_to_dense", cpu.median, "<=", MAX_REDIS_TO_DENSE),
        Target("added_p50_ratio_redis_to_bare_get", to_get.median, "<=", MAX_ADDED_TO_GET),
    ]


def _paused(found: Found) -> tuple[Values, list[Target]]:
    values: Values = {}
    targets = []
    names = {"paused": "redis_paused", "unbroken": "redis_paused_before_breaker"}
    for step, name in names.items():
        runs = found.runs[step, "redis_uniform"]
        for percentile in ("p50", "p99", "p999", "max"):
            spread = Spread.of(found.values(step, "redis_uniform", f"{percentile}_us"))
            values[f"latency_{percentile}_us_{name}"] = spread
        for outcome in ("timeout", "unreachable", "breaker"):
            ended = [run.beside.get(f"reads online.{outcome}", 0.0) for run in runs]
            values[f"reads_{outcome}_{name}"] = Spread.of(ended)
        key = f"latency_p999_us_{name}"
        limit_us = (BUDGET_MS + MAX_OVER_BUDGET_MS) * 1e3
        targets.append(Target(key, values[key].median, "<=", limit_us))
    return values, targets


def _broken(found: Found) -> tuple[Values, list[Target]]:
    get = found.values
    per_cpu = ratios(
        get("broken", "redis_uniform", "calls_per_cpu_s"),
        get("broken", "lmdb_uniform", "calls_per_cpu_s"),
    )
    values: Values = {
        "throughput_ratio_breaker_open_to_lmdb": per_cpu,
        "calls_per_s_ratio_breaker_open_to_lmdb": ratios(
            get("broken", "redis_uniform", "calls_per_s"),
            get("broken", "lmdb_uniform", "calls_per_s"),
        ),
    }
    for subject, name in (("redis_uniform", "breaker_open"), ("lmdb_uniform", "lmdb_alone")):
        for quantity in ("calls_per_cpu_s", "calls_per_s", "busy_share"):
            values[f"{quantity}_{name}"] = Spread.of(get("broken", subject, quantity))
    name = "throughput_ratio_breaker_open_to_lmdb"
    return values, [Target(name, per_cpu.median, ">=", MIN_BROKEN_TO_LMDB)]


def _loads(found: Found) -> tuple[Values, list[Target]]:
    values, targets = {}, []
    for table in ("online", "batch"):
        name = f"load_{table}_records_per_s"
        values[name] = Spread.of(found.figures[name])
        # What a load does once weighs more on a small one; the promise is about a million.
        if found.plan.entities.n_customers >= A_MILLION:
            targets.append(Target(name, values[name].median, ">=", MIN_LOAD_PER_S))
    return values, targets
