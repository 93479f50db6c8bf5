"""What outcomes cost: the figures of `feedback.json`.

The store on its own (`feedback_store`): how fast outcomes meet their decisions, what a million of
them takes on disk, and in memory however late they come. Then servers under load
(`feedback_loads`): what recording costs a loop, 20,000 calls a second recorded in full, more than
that recorded in part, and the console beside it. scoregate has core 0 for itself, its threads in
background included; the load generator and whoever asks have core 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import feedback_loads, feedback_store
from bench.feedback_console import Console
from bench.feedback_loads import KINDS, STORES, SUSTAINED_PER_S, AtCapacity, Recording, Sustained
from bench.feedback_plan import Plan
from bench.feedback_requests import Requests
from bench.model import prepare
from bench.progress import Display
from bench.results import Spread, Target, ratios
from bench.rollout_loads import Loads
from bench.runner import load_core

MIN_JOINED_PER_S = 50_000.0
MAX_BYTES_PER_MILLION = 96e6
MAX_GROWTH_BYTES = 16e6
MAX_COST_RATIO = 1.07
MAX_CONSOLE_MS = 15.0
MAX_PAGE_BYTES = 120_000.0

Values = dict[str, Any]


@dataclass
class Found:
    """Everything that was measured."""

    loads: Loads
    join: dict[str, Any]  # of `feedback_store.join`
    segments: dict[str, Any]  # of `feedback_store.segments`
    delays: dict[str, Any]  # of `feedback_store.delays`
    recording: Recording
    sustained: Sustained
    capacity: AtCapacity
    console: Console


def run(plan: Plan, display: Display, core: int | None) -> Found:
    """Measure everything.

    Raises
    ------
    BenchError
        A server does not start, an answer was wrong, or something is not where it should be.
    """
    model = prepare()
    made = Requests(model, plan.n_messages)
    loads = Loads(plan.loads, display, core)
    with load_core(core):
        display.say(f"the store: {plan.n_records:,} decisions and their outcomes")
        join = feedback_store.measure("join", STORES / "join", plan.n_records)
        display.say("the store: the same in segments, and outcomes of what was never recorded")
        segments = feedback_store.measure("segments", STORES / "segments", plan.n_records)
        display.say("the store: outcomes that come later and later")
        delays = feedback_store.measure("delays", STORES / "delays", plan.n_delayed)
        recording = feedback_loads.recording(loads, plan, model.repository, made)
        sustained = feedback_loads.sustained(loads, plan, model.repository, made)
        capacity, console = feedback_loads.capacity(loads, plan, model.repository, made)
    display.end()
    return Found(loads, join, segments, delays, recording, sustained, capacity, console)


def summary(found: Found) -> tuple[Values, list[Target]]:
    """Turn what was found into figures and promises."""
    loads = found.loads
    values: Values = {
        "shape": {
            "message_bytes": loads.runs["sustained"][0].load["message_bytes"],
            "model": "100 trees of depth 6 on 30 features; 1 % score over the lowest threshold",
            "sustained_calls_per_s": SUSTAINED_PER_S,
            "cores": "scoregate, or its store, on core 0; load generator and callers on core 1",
        }
    }
    targets: list[Target] = []
    for part in (_store, _recording, _sustained, _capacity, _console):
        more, promised = part(found)
        values |= more
        targets += promised
    values["valid"] = not loads.reasons
    values["invalid_reasons"] = loads.reasons
    values["runs"] = [run.to_json() for runs in loads.runs.values() for run in runs]
    return values, targets


def _store(found: Found) -> tuple[Values, list[Target]]:
    spread = found.segments
    values = {f"store_{name}": value for name, value in found.join.items()}
    values |= {f"store_segments_{name}": value for name, value in spread.items()}
    values |= {f"delays_{name}": value for name, value in found.delays.items()}
    return values, [
        Target("store_joined_per_s", found.join["joined_per_s"], ">=", MIN_JOINED_PER_S),
        Target("store_segments_joined_per_s", spread["joined_per_s"], ">=", MIN_JOINED_PER_S),
        # As many are of requests that were never decided.
        Target("store_segments_matched_share", spread["joined_matched_share"], ">=", 0.5),
        Target("store_joined_matched_share", found.join["joined_matched_share"], ">=", 1.0),
        Target(
            "store_bytes_per_million", found.join["bytes_per_million"], "<=", MAX_BYTES_PER_MILLION
        ),
        Target("delays_growth_bytes", found.delays["growth_bytes"], "<=", MAX_GROWTH_BYTES),
    ]


def _recording(found: Found) -> tuple[Values, list[Target]]:
    get, recording = found.loads.values, found.recording
    values: Values = {}
    for name in KINDS:
        values[f"recording_{name}_loop_cpu_us_per_call"] = Spread.of(recording.loop_us[name])
        for quantity in ("calls_per_cpu_s", "calls_per_s"):
            values[f"recording_{name}_{quantity}"] = Spread.of(get(f"closed_{name}", quantity))
    for name in (name for name in KINDS if name != "off"):
        values[f"recording_{name}_to_off_loop_cpu_ratio"] = ratios(
            recording.loop_us[name], recording.loop_us["off"]
        )
        values[f"recording_{name}_to_off_process_cpu_ratio"] = ratios(
            get("closed_off", "calls_per_cpu_s"), get(f"closed_{name}", "calls_per_cpu_s")
        )
        values[f"recording_{name}_dropped_share"] = Spread.of(recording.dropped_share[name])
    # By default, what is written in background counts, too; all that a loop can do costs the loop.
    promised = ("recording_default_to_off_process_cpu_ratio", "recording_all_to_off_loop_cpu_ratio")
    return values, [Target(name, values[name].median, "<=", MAX_COST_RATIO) for name in promised]


def _sustained(found: Found) -> tuple[Values, list[Target]]:
    counted, said = found.sustained.counted, found.sustained.reported
    values: Values = {
        "sustained_calls": counted.calls,
        "sustained_recorded": counted.recorded,
        "sustained_dropped": counted.dropped,
        "sustained_recorded_share": counted.recorded / counted.calls,
        "sustained_resident_bytes": found.sustained.resident_bytes,
        "reported_over_the_wire_per_s": said.per_s,
        "reported_over_the_wire_unmatched": said.unmatched,
    }
    for quantity in ("p50_us", "p99_us", "p999_us", "cpu_us_per_call"):
        values[f"sustained_{quantity}"] = Spread.of(found.loads.values("sustained", quantity))
    return values, [
        Target("sustained_dropped", counted.dropped, "<=", 0.0),
        Target("sustained_recorded_share", values["sustained_recorded_share"], ">=", 1.0),
        Target("reported_over_the_wire_unmatched", float(said.unmatched), "<=", 0.0),
    ]


def _capacity(found: Found) -> tuple[Values, list[Target]]:
    capacity = found.capacity
    n_over = capacity.over.accepted
    values: Values = {
        "capacity_calls_per_s": Spread.of(found.loads.values("capacity", "calls_per_s")),
        "capacity_sampling_ratio": capacity.sampling_ratio,
        "capacity_recorded_share": capacity.counted.recorded / capacity.counted.calls,
        "capacity_dropped": capacity.counted.dropped,
        "capacity_settling_s": capacity.settling_s,
        "capacity_settling_dropped": capacity.before.dropped,
        "capacity_over_threshold": n_over,
        "capacity_over_threshold_kept_share": 1 - capacity.over.unmatched / n_over,
        "capacity_others_kept_share": 1 - capacity.under.unmatched / capacity.under.accepted,
    }
    return values, [
        Target("capacity_dropped", capacity.counted.dropped, "<=", 0.0),
        Target(
            "capacity_over_threshold_kept_share",
            values["capacity_over_threshold_kept_share"],
            ">=",
            1.0,
        ),
    ]


def _console(found: Found) -> tuple[Values, list[Target]]:
    console = found.console
    values: Values = {
        "console_looks": len(console.times_ms),
        "console_data_bytes": console.data_bytes,
        "console_page_bytes": console.page_bytes,
        "console_calls_per_s": Spread.of(found.loads.values("console", "calls_per_s")),
        "console_latency_p99_us": Spread.of(found.loads.values("console", "p99_us")),
    }
    for name, at in (("p50", 50), ("p99", 99), ("max", 100)):
        values[f"console_data_ms_{name}"] = float(np.percentile(console.times_ms, at))
    return values, [
        Target("console_data_ms_p50", values["console_data_ms_p50"], "<=", MAX_CONSOLE_MS),
        Target("console_page_bytes", float(console.page_bytes), "<=", MAX_PAGE_BYTES),
    ]
