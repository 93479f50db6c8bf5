"""What watching costs: the figures of `monitoring.json`.

Five parts: capture of everything and of the default share (`monitoring_loads`); an evaluation of
drift (`drift_cost`); a scrape under load; what calls wait when somebody scrapes and evaluates
without a pause; the memory of a monitor, as it counts it and as the system does
(`monitoring_memory`). scoregate has core 0 for itself, monitors and sidecar included; the load
generator and the scraper share core 1. Loads that are compared take turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import drift_cost, monitoring_loads, monitoring_memory
from bench.model import prepare
from bench.monitoring_loads import CAPTURES, KINDS, PAUSE_S, Scraped, Watching
from bench.monitoring_plan import Plan
from bench.progress import Display
from bench.results import Spread, Target, ratios
from bench.rollout_cycles import REALTIME
from bench.rollout_loads import Loads
from bench.runner import load_core
from bench.scenario import Rows
from bench.sources import SCORE, rows

MIN_CAPTURE_RATIO = 0.93
MAX_EVALUATE_MS = 30.0
MAX_SCRAPE_MS = 20.0
MAX_P99_RATIO = 1.15
MAX_MONITOR_BYTES = 16e6

Values = dict[str, Any]


@dataclass
class Found:
    """Everything that was measured."""

    loads: Loads
    shares: dict[str, dict[str, list[float]]]  # of captured and dropped calls, by server
    watching: Watching
    scraped: Scraped
    cost: dict[str, Any]  # of `drift_cost`
    memory: dict[str, float]  # of `monitoring_memory`


def run(plan: Plan, display: Display, core: int | None) -> Found:
    """Measure everything.

    Raises
    ------
    BenchError
        A server does not start, an answer was wrong, or an evaluation failed.
    """
    model = prepare()
    messages = monitoring_loads.of_now(rows(Rows(), SCORE, model))
    loads = Loads(plan.loads, display, core)
    with load_core(core):
        display.say("an evaluation, and the memory of a monitor")
        cost = drift_cost.cost()
        memory = monitoring_memory.measure(model.bundle)
        shares = monitoring_loads.capture(loads, plan, model.repository, messages)
        watching, scraped = monitoring_loads.disturbance(loads, plan, model.repository, messages)
    display.end()
    return Found(loads, shares, watching, scraped, cost, memory)


def summary(found: Found) -> tuple[Values, list[Target]]:
    """Turn what was found into figures and promises."""
    loads = found.loads
    values: Values = {
        "shape": {
            "message_bytes": loads.runs["calm"][0].load["message_bytes"],
            "model": "100 trees of depth 6 on 30 features",
            "half_of_capacity_calls_per_s": loads.runs["calm"][0].load["rate"]["per_s"],
            "pause_between_scrapes_s": PAUSE_S,
            "cores": "scoregate on core 0; load generator and scraper on core 1",
        }
    }
    targets: list[Target] = []
    for part in (_capture, _evaluation, _scrape, _disturbance, _memory):
        more, promised = part(found)
        values |= more
        targets += promised
    values["valid"] = not loads.reasons
    values["invalid_reasons"] = loads.reasons
    values["runs"] = [run.to_json() for runs in loads.runs.values() for run in runs]
    return values, targets


def _capture(found: Found) -> tuple[Values, list[Target]]:
    get = found.loads.values
    values: Values = {}
    for name in CAPTURES:
        for quantity in ("calls_per_cpu_s", "calls_per_s"):
            values[f"capture_{name}_{quantity}"] = Spread.of(get(f"closed_{name}", quantity))
    for name in (name for name in CAPTURES if name != "off"):
        for quantity in ("calls_per_cpu_s", "calls_per_s"):
            values[f"capture_{name}_to_off_{quantity}_ratio"] = ratios(
                get(f"closed_{name}", quantity), get("closed_off", quantity)
            )
        for share, measured in found.shares[name].items():
            values[f"capture_{name}_{share}"] = Spread.of(measured)
    promised = [f"capture_all_to_off_{q}_ratio" for q in ("calls_per_cpu_s", "calls_per_s")]
    # The worst: a run in which less than everything was to be captured has shown nothing.
    seen = values["capture_all_seen_share"].min
    return values, [
        *(Target(name, values[name].median, ">=", MIN_CAPTURE_RATIO) for name in promised),
        Target("capture_all_seen_share", seen, ">=", 1.0),
    ]


def _evaluation(found: Found) -> tuple[Values, list[Target]]:
    values = {f"drift_{name}": value for name, value in found.cost.items()}
    evaluate_ms = found.cost["evaluate_ms_5000"]
    return values, [Target("drift_evaluate_ms_5000", evaluate_ms, "<=", MAX_EVALUATE_MS)]


def _scrape(found: Found) -> tuple[Values, list[Target]]:
    values: Values = {
        "scrapes": len(found.scraped.times_ms),
        "scrape_bytes": max(found.scraped.n_bytes),
    }
    for name, at in (("p50", 50), ("p99", 99), ("max", 100)):
        values[f"scrape_ms_{name}"] = float(np.percentile(found.scraped.times_ms, at))
    return values, [Target("scrape_ms_p50", values["scrape_ms_p50"], "<=", MAX_SCRAPE_MS)]


def _disturbance(found: Found) -> tuple[Values, list[Target]]:
    loads, watching = found.loads, found.watching
    tails = {
        f"latency_p99_ratio_{over}_to_{under}{suffix}": ratios(
            loads.values(over + suffix, "p99_us"), loads.values(under + suffix, "p99_us")
        )
        for suffix in watching.evaluations_per_s
        for over, under in (("watched", "calm"), ("busy", "calm"), ("watched", "busy"))
    }
    values: Values = dict(tails)
    n_failed = 0
    for suffix, per_s in watching.evaluations_per_s.items():
        values[f"watched_evaluations_per_s{suffix}"] = Spread.of(per_s)
        values[f"watched_scrapes{suffix}"] = len(watching.scrape_ms[suffix])
        n_failed += loads.n_failed.get(f"watched{suffix}", 0)
        for kind in KINDS:
            name = kind + suffix
            for quantity in ("p50_us", "p99_us", "p999_us", "max_us"):
                values[f"latency_{quantity}_{name}"] = Spread.of(loads.values(name, quantity))
    values["watched_failed_requests"] = n_failed
    return values, [
        *(
            Target(name, tail.median, "<=", MAX_P99_RATIO)
            for name, tail in tails.items()
            if name.removesuffix(REALTIME) == "latency_p99_ratio_watched_to_calm"
        ),
        Target("watched_failed_requests", float(n_failed), "<=", 0.0),
    ]


def _memory(found: Found) -> tuple[Values, list[Target]]:
    values = {f"monitor_{name}": value for name, value in found.memory.items()}
    return values, [
        Target(name, values[name], "<=", MAX_MONITOR_BYTES)
        for name in ("monitor_counted_bytes", "monitor_resident_bytes")
    ]
