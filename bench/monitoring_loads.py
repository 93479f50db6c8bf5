"""The loads of the monitoring benchmark: capture, and what a busy monitor does to callers.

Capture: servers that capture nothing, the default (20 rows a second) and everything take turns, in
closed loop. Everything is more than can be looked at: the rings drop the rest and count it, which
is what keeps capture cheap. A ring of 1 MiB is the default; one of 64 MiB holds what half a second
brings, and the monitor then takes what it costs to look at each row.

Disturbance, at half of a server's capacity, four loads in turn:

    calm      capture of 1,000 rows a second into a full window of 5,000; evaluated every 30 s
    busy      calm, and what the loop leaves of the core is burnt by an idle-class process that has
              nothing to do with the server: what a machine does when none of its cores rests
    watched   as calm, evaluated every 0.1 s, scraped 0.1 s after the last scrape was read
    scraped   as watched; the scraper has its usual priority, and its times are what counts

In "watched" the scraper makes way for the load generator, which has the same core. The server that
is not asked is stopped (SIGSTOP): its evaluations would disturb the other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.beside import Scraper
from bench.errors import LoadError
from bench.message import Message
from bench.monitoring_plan import Plan
from bench.rollout_cycles import REALTIME, burnt, may_be_realtime
from bench.rollout_loads import OPEN_SHAPE, Loads, serving
from bench.scenario import Closed
from bench.targets import Target
from server.pb.scoregate.v1 import scoring_pb2

EVERYTHING = ("--drift-rows-per-s", "1000000")
CAPTURES: dict[str, tuple[str, ...]] = {
    "off": ("--no-drift-enabled",),
    "default": (),
    "all": EVERYTHING,
    "all_large": (*EVERYTHING, "--drift-ring-bytes", str(64 << 20)),
}
WINDOW_ROWS = 5000
# A window that fills within seconds, and says something at once.
FILLS = (
    *("--drift-window-rows", str(WINDOW_ROWS), "--drift-min-span-s", "0"),
    *("--drift-rows-per-s", "1000"),
)
EAGER = ("--drift-interval-s", "0.1", "--drift-drain-s", "0.05")
KINDS = ("calm", "busy", "watched")
PAUSE_S = 0.1  # between scrapes
FILL_S = 1.0
MAX_FILLS = 30


@dataclass
class Watching:
    """What the busy monitor and its scraper did.

    Attributes
    ----------
    scrape_ms
        Time of each scrape while the scraper made way, by suffix.
    evaluations_per_s
        Of each load that was watched, by suffix.
    """

    scrape_ms: dict[str, list[float]] = field(default_factory=dict)
    evaluations_per_s: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Scraped:
    """What a scraper of usual priority saw."""

    times_ms: list[float] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)


def of_now(messages: list[Message]) -> list[Message]:
    """Return the same requests without a time of their own: what they say happens now."""
    found = []
    for message in messages:
        request = scoring_pb2.ScoreRequest.FromString(message.body)
        request.event_time_ms = 0
        body = request.SerializeToString()
        found.append(Message(message.method, body, expected_raw=message.expected_raw))
    return found


def capture(
    loads: Loads, plan: Plan, repository: Path, messages: list[Message]
) -> dict[str, dict[str, list[float]]]:
    """Make the loads called "closed_" and a name of CAPTURES.

    Returns
    -------
    dict of str to dict of str to list of float
        By name: "seen_share", "captured_share" and "dropped_share" of all calls, one value per
        repetition; what is seen is captured or dropped.

    Raises
    ------
    BenchError
        A server does not start, or an answer was wrong.
    """
    shares: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(serving(name, repository, *options)).target
            for name, options in CAPTURES.items()
        }
        for repetition in range(plan.closed_repetitions):
            names = list(CAPTURES)
            for name in names if repetition % 2 == 0 else names[::-1]:
                target = targets[name]
                before = target.counters()
                loads.one(
                    f"closed_{name}",
                    target,
                    messages,
                    Closed(),
                    repetition,
                    duration_s=plan.closed_s,
                )
                time.sleep(1.0)  # until what is in the rings was looked at
                after = target.counters()
                if name == "off":
                    continue
                n_calls = _difference(before, after, "ml_predictions_total")
                captured = _difference(before, after, "ml_drift_samples_total")
                dropped = _difference(before, after, "ml_drift_samples_dropped_total")
                found = shares.setdefault(name, {})
                found.setdefault("seen_share", []).append((captured + dropped) / n_calls)
                found.setdefault("captured_share", []).append(captured / n_calls)
                found.setdefault("dropped_share", []).append(dropped / n_calls)
    return shares


def disturbance(
    loads: Loads, plan: Plan, repository: Path, messages: list[Message]
) -> tuple[Watching, Scraped]:
    """Make the loads called as in KINDS, with REALTIME behind where loops went first.

    Raises
    ------
    BenchError
        A server does not start, an answer was wrong, or a window did not fill.
    """
    watching, scraped = Watching(), Scraped()
    _disturb(loads, plan, repository, messages, watching, scraped, "")
    if may_be_realtime():
        _disturb(loads, plan, repository, messages, watching, scraped, REALTIME)
    return watching, scraped


def _disturb(
    loads: Loads,
    plan: Plan,
    repository: Path,
    messages: list[Message],
    watching: Watching,
    scraped: Scraped,
    suffix: str,
) -> None:
    options = (*FILLS, "--fast-realtime") if suffix else FILLS
    with (
        serving("calm", repository, *options) as calm,
        serving("watched", repository, *options, *EAGER) as watched,
    ):
        targets = {"calm": calm.target, "busy": calm.target, "watched": watched.target}
        offered = loads.half_of_capacity(calm.target, messages)
        for target in (calm.target, watched.target):
            _fill(loads, target, messages)
        beside: dict[str, Callable[[], AbstractContextManager[object]]]
        beside = {
            "calm": nullcontext,
            "busy": burnt,
            "watched": lambda: _watched(watched.target, watching, suffix),
        }
        for leg in range(plan.realtime_legs if suffix else plan.legs):
            at = leg % len(KINDS)
            for kind in KINDS[at:] + KINDS[:at]:
                other = calm if kind == "watched" else watched
                with stopped(other.target), beside[kind]():
                    loads.one(
                        kind + suffix,
                        targets[kind],
                        messages,
                        offered,
                        leg,
                        shape=OPEN_SHAPE,
                        duration_s=plan.leg_s,
                    )
        if not suffix:
            with stopped(calm.target), scrapes(watched.target, steps_back=False) as scraper:
                loads.one(
                    "scraped",
                    watched.target,
                    messages,
                    offered,
                    0,
                    shape=OPEN_SHAPE,
                    duration_s=plan.scraped_s,
                )
            scraped.times_ms += scraper.times_ms
            scraped.n_bytes += scraper.n_bytes


@contextmanager
def stopped(target: Target) -> Iterator[None]:
    """Stop a server until the block ends."""
    assert target.pid is not None
    os.kill(target.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(target.pid, signal.SIGCONT)


@contextmanager
def scrapes(target: Target, *, steps_back: bool) -> Iterator[Scraper]:
    """Scrape until the block ends.

    Raises
    ------
    LoadError
        A scrape failed, or none was answered.
    """
    assert target.sidecar is not None
    scraper = Scraper(target.sidecar, PAUSE_S, steps_back=steps_back)
    scraper.start()
    try:
        yield scraper
    finally:
        scraper.ended.set()
        scraper.join()
    if scraper.failure or not scraper.times_ms:
        raise LoadError(f"scrapes of {target.sidecar}: {scraper.failure or 'none was answered'}")


@contextmanager
def _watched(target: Target, watching: Watching, suffix: str) -> Iterator[None]:
    before, started = n_evaluations(target.counters()), time.monotonic()
    with scrapes(target, steps_back=True) as scraper:
        yield
    after = target.counters()
    if window_rows(after) < WINDOW_ROWS:
        raise LoadError(f"{target.name}: {window_rows(after):.0f} rows in its window")
    per_s = (n_evaluations(after) - before) / (time.monotonic() - started)
    watching.evaluations_per_s.setdefault(suffix, []).append(per_s)
    watching.scrape_ms.setdefault(suffix, []).extend(scraper.times_ms)


def n_evaluations(counters: dict[str, float]) -> float:
    """Return how many evaluations there were.

    Raises
    ------
    LoadError
        Some failed: then what was measured is not what was meant.
    """
    found = dict.fromkeys(("ok", "failed"), 0.0)
    for name, value in counters.items():
        for result in found:
            if name.startswith("ml_drift_evaluations_total{") and f'result="{result}"' in name:
                found[result] += value
    if found["failed"]:
        raise LoadError(f"{found['failed']:.0f} evaluations of drift failed")
    return found["ok"]


def window_rows(counters: dict[str, float]) -> float:
    """Return how many rows the fast window holds."""
    name = "ml_drift_window_observations{"
    return sum(
        value for key, value in counters.items() if key.startswith(name) and 'window="fast"' in key
    )


def _fill(loads: Loads, target: Target, messages: list[Message]) -> None:
    """Send calls until as many rows were captured as the fast window holds."""
    name = f"filling_{target.name}"
    for attempt in range(MAX_FILLS):
        counters = target.counters()
        if counters["ml_drift_samples_total"] >= WINDOW_ROWS:
            break
        loads.one(name, target, messages, Closed(), attempt, duration_s=FILL_S, attempts=1)
    else:
        raise LoadError(f"{target.name}: its window is not full after {MAX_FILLS} s of calls")
    loads.runs.pop(name, None)  # no measurement


def _difference(before: dict[str, float], after: dict[str, float], name: str) -> float:
    def total(counters: dict[str, float]) -> float:
        return sum(value for key, value in counters.items() if key.partition("{")[0] == name)

    return total(after) - total(before)
