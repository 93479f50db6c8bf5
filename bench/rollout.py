"""What a change of versions costs those who call meanwhile: the figures of `rollout.json`.

Four parts: what a routing decision takes; versions swapped under load, a thousand times
(`rollout_cycles`); rollbacks under load (`rollout_backs`); many models in memory (`rollout_fleet`).
scoregate has core 0 for itself, loader, control port and journal included; the load generator, the
operator and the probes share core 1. Loads that are compared take turns.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import rollout_backs, rollout_cycles, rollout_fleet, routing_speed
from bench.message import Message
from bench.model import BenchModel
from bench.progress import Display
from bench.results import Spread, Target, ratios
from bench.rollout_backs import Backs
from bench.rollout_cycles import KINDS, REALTIME, Cycles
from bench.rollout_loads import Loads
from bench.rollout_models import Versions, prepare_fleet, prepare_versions
from bench.rollout_plan import Plan
from bench.runner import load_core
from bench.scenario import Rows
from bench.sources import SCORE, rows

MAX_P999_RATIO = 1.25
MAX_GROWTH = 0.02
MAX_LAST_OLD_MS = 50.0
MAX_ROUTING_NS = 20.0
MIN_FLEET_RATIO = 0.95
TENTH = 10  # the cycle from which on memory has to stay
AROUND = 10  # so many cycles from the tenth on, and so many at the end
EVERY = 20  # cycles between two values of the memory that are written down

Values = dict[str, Any]


@dataclass
class Found:
    """Everything that was measured."""

    loads: Loads
    routing: dict[str, Spread]
    cycles: Cycles
    backs: Backs


def run(plan: Plan, display: Display, core: int | None) -> Found:
    """Measure everything.

    Raises
    ------
    BenchError
        A server does not start, a change was refused, or an answer was wrong.
    """
    display.say("two versions of one model; three of each of eight")
    versions, fleet = prepare_versions(), prepare_fleet()
    messages = unchecked(versions)
    loads = Loads(plan, display, core)
    with load_core(core):
        display.say("routing")
        routing = routing_speed.measure(versions, plan.n_keys)
        backs = rollout_backs.measure(loads, versions, messages)
        rollout_fleet.measure(loads, fleet)
        cycles = rollout_cycles.measure(loads, versions, messages)
    display.end()
    return Found(loads, routing, cycles, backs)


def unchecked(versions: Versions) -> list[Message]:
    """Return requests without their score: which version answers, and so with what, changes."""
    bundle = versions.repository / "bench" / "1"
    made = rows(Rows(), SCORE, BenchModel(versions.repository, bundle, versions.rows))
    return [dataclasses.replace(message, expected_raw=None) for message in made]


def summary(found: Found) -> tuple[Values, list[Target]]:
    """Turn what was found into figures and promises."""
    loads = found.loads
    values: Values = {
        "shape": {
            "message_bytes": loads.runs["still"][0].load["message_bytes"],
            "swapped_model": "100 trees of depth 6 on 30 features, two versions",
            "fleet": "8 models of 3 versions: 24 engines of the same trees",
            "half_of_capacity_calls_per_s": loads.runs["still"][0].load["rate"]["per_s"],
            "cores": "scoregate on core 0; load generator, operator and probes on core 1",
        }
    }
    targets: list[Target] = []
    for part in (_cycles, _backs, _routing, _fleet):
        more, promised = part(found)
        values |= more
        targets += promised
    values["valid"] = not loads.reasons
    values["invalid_reasons"] = loads.reasons
    values["runs"] = [run.to_json() for runs in loads.runs.values() for run in runs]
    return values, targets


def _cycles(found: Found) -> tuple[Values, list[Target]]:
    cycles, loads = found.cycles, found.loads
    tails = {
        f"latency_p999_ratio_{over}_to_{under}{suffix}": ratios(
            loads.values(over + suffix, "p999_us"), loads.values(under + suffix, "p999_us")
        )
        for suffix in ("", REALTIME)
        if f"swapping{suffix}" in loads.runs
        for over, under in (("swapping", "still"), ("busy", "still"), ("swapping", "busy"))
    }
    # Medians: memory is looked at while calls come in, and whoever scrapes or loads takes some.
    tenth = float(np.median(cycles.resident_bytes[TENTH - 1 :][:AROUND]))
    last = float(np.median(cycles.resident_bytes[-AROUND:]))
    growth = last / tenth - 1
    n_failed = sum(loads.n_failed.get(f"swapping{suffix}", 0) for suffix in ("", REALTIME))
    values: Values = {
        "cycles": cycles.n,
        "calls_beside_cycles": sum(run.result.n_answered for run in loads.runs["swapping"]),
        "failed_requests": n_failed,
        **tails,
        "cycle_load_ms": _percentiles(cycles.load_ms),
        "cycle_switch_ms": _percentiles(cycles.switch_ms),
        "rss_after_tenth_cycle_bytes": tenth,
        "rss_after_last_cycle_bytes": last,
        "rss_growth_share": growth,
        "rss_series_bytes": cycles.resident_bytes[:: max(1, min(EVERY, cycles.n // 10))],
    }
    for name in (name for name in loads.runs if name.removesuffix(REALTIME) in KINDS):
        for quantity in ("p50_us", "p99_us", "p999_us", "p9999_us", "max_us"):
            values[f"latency_{quantity}_{name}"] = Spread.of(loads.values(name, quantity))
    return values, [
        Target("cycles", float(cycles.n), ">=", float(loads.plan.n_cycles)),
        Target("failed_requests", float(n_failed), "<=", 0.0),
        *(
            Target(name, tail.median, "<=", MAX_P999_RATIO)
            for name, tail in tails.items()
            if name.startswith("latency_p999_ratio_swapping")
        ),
        Target("rss_growth_share", abs(growth), "<=", MAX_GROWTH),
    ]


def _backs(found: Found) -> tuple[Values, list[Target]]:
    backs = found.backs
    values: Values = {
        "rollbacks": len(backs.last_old_ms),
        "rollback_probes": backs.n_probes,
        "rollback_last_old_answer_ms": Spread.of(backs.last_old_ms),
        "rollback_call_ms": Spread.of(backs.call_ms),
        "rollback_old_answers_after_return": backs.n_late,
        "rollback_wrong_answers": backs.n_wrong,
        "rollback_failed_requests": found.loads.n_failed["rollbacks"],
    }
    worst = values["rollback_last_old_answer_ms"].max
    return values, [
        Target("rollback_last_old_answer_ms_max", worst, "<=", MAX_LAST_OLD_MS),
        Target("rollback_old_answers_after_return", float(backs.n_late), "<=", 0.0),
        Target("rollback_wrong_answers", float(backs.n_wrong), "<=", 0.0),
        Target("rollback_failed_requests", float(values["rollback_failed_requests"]), "<=", 0.0),
    ]


def _routing(found: Found) -> tuple[Values, list[Target]]:
    promised = [name for name in found.routing if "14_byte" in name]
    return dict(found.routing), [
        Target(name, found.routing[name].median, "<=", MAX_ROUTING_NS) for name in promised
    ]


def _fleet(found: Found) -> tuple[Values, list[Target]]:
    values: Values = {}
    get = found.loads.values
    for one, *fleet in rollout_fleet.ROUNDS:
        for subject in (one, *fleet):
            spent = Spread.of(get(f"closed_{subject}", "calls_per_cpu_s"))
            values[f"scores_per_server_cpu_second_fleet_{subject}"] = spent
        for subject in fleet:
            values[f"throughput_ratio_fleet_{subject}_to_one"] = ratios(
                get(f"closed_{subject}", "calls_per_cpu_s"), get(f"closed_{one}", "calls_per_cpu_s")
            )
    # Promised is what loading costs. What traffic for more engines costs is shown.
    name = "throughput_ratio_fleet_loaded_to_one"
    return values, [Target(name, values[name].median, ">=", MIN_FLEET_RATIO)]


def _percentiles(values: list[float]) -> dict[str, float]:
    names = {"min": 0, "p50": 50, "p99": 99, "max": 100}
    return {name: float(np.percentile(values, at)) for name, at in names.items()}
