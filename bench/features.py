"""What stored features cost beside dense ones: the figures of `features.json`.

Rules: a request with stored features and the same request with dense ones go to the same server
process, in turns, in the same shape (8 connections of 4 streams) and at the same offered rate;
claims compare runs of one repetition. scoregate has core 0 for itself; the load generator and
Redis share core 1. Every answer is checked against stock onnxruntime's score of the whole row, and
the server's own counters have to say that the records were read where they should have been.

How it works: a million customers and 200,000 terminals are loaded by `scoregate features load`
into a temporary directory (that is one of the figures) and written to Redis. What a bare read costs
is measured in every repetition: `mdb_get` of the same keys in the same order on the servers' core;
a GET by hiredis from that core.

Redis is paused with SIGSTOP, a second into an open-loop run (`paused`: by default the connection
is given up, or the breaker opens, and reads then fail at once), and during a whole run of a server
whose connection and breaker hold out (`unbroken`: every read waits for its whole budget). With the
breaker open its server then runs against the LMDB server, in closed loop.

What it does not do: no TCP between scoregate and Redis, no TLS, no slow disk: a million records lie
in the page cache.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import feature_loading, feature_model, feature_store_data, measure
from bench.errors import LoadError
from bench.feature_floors import Floors
from bench.feature_plan import Plan
from bench.feature_servers import (
    OPEN,
    Reads,
    Redis,
    breaker_is,
    is_connected,
    redis,
    scoregate,
    wait_until,
)
from bench.feature_store_data import pairs
from bench.generator import Limits
from bench.key_order import Order
from bench.measure import Measured, Work
from bench.message import Message
from bench.model import prepare
from bench.progress import Display
from bench.runner import load_core
from bench.scenario import Closed, LoadKind, Poisson, Rate, Shape
from bench.sources import Cache
from bench.targets import Target as Server

SINGLE = Shape(connections=1, streams=1)
OPEN_SHAPE = Shape(streams=64)  # a paused store holds every call for its whole budget
WARMUP_S = 0.3
PAUSE_AFTER_S = 1.0
ORDERS: tuple[Order, ...] = ("uniform", "zipf")
MISSED = 0.001  # of the reads, at most
# A connection without an answer is kept, and every read waits for its whole budget.
NEVER_STALLS = ("--redis-stall-us", "60000000")
NEVER_OPENS = ("--redis-breaker-min-reads", "1000000", "--redis-breaker-window-ms", "10")
RECOVERY_S = 15.0
SEED = 1


@dataclass
class Found:
    """Everything that was measured."""

    plan: Plan
    runs: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)  # without a run
    peers: dict[str, Any] = field(default_factory=dict)

    def values(self, step: str, subject: str, quantity: str) -> list[float]:
        """Return one quantity of every repetition."""
        return [run.quantities[quantity] for run in self.runs[step, subject]]

    def note(self, name: str, value: float) -> None:
        """Keep a figure of one repetition."""
        self.figures.setdefault(name, []).append(value)

    @property
    def reasons(self) -> list[str]:
        """What speaks against it, with the run that shows it."""
        return [
            f"{run.run}, repetition {run.repetition + 1}: {reason}"
            for runs in self.runs.values()
            for run in runs
            for reason in run.reasons
        ]


class Bench:
    """The servers that are up, what they are asked, and how.

    A *subject* is a server with a form of request: "lmdb_uniform" asks the LMDB server for uniform
    keys, "lmdb_dense" sends it dense features.
    """

    def __init__(self, plan: Plan, display: Display, core: int | None) -> None:
        self.plan = plan
        self.display = display
        self.core = core
        self.found = Found(plan)
        self._nothing = Cache(prepare)  # of `measure.run`; nothing runs beside our loads
        self.servers: dict[str, Server] = {}
        model = feature_model.prepare()
        self.pairs = {
            order: pairs(plan.entities, plan.n_messages, order, seed=SEED) for order in ORDERS
        }
        self.messages: dict[str, list[Message]] = {}
        for order, chosen in self.pairs.items():
            display.say(f"{plan.n_messages:,} requests, {order} keys, and their scores")
            rows = feature_model.whole_rows(plan.entities, chosen, SEED)
            scores = model.raw_scores(rows)
            self.messages[order] = feature_model.requests(chosen, rows, scores, dense=False)
            if order == "uniform":
                self.messages["dense"] = feature_model.requests(chosen, rows, scores, dense=True)

    def one(
        self,
        step: str,
        subject: str,
        repetition: int,
        load: LoadKind,
        *,
        shape: Shape | None = None,
        duration_s: float = 1.0,
        n_calls: int | None = None,
        attempts: int | None = None,
        wants_hits: bool = False,
    ) -> Measured:
        """Measure one run and keep it.

        Raises
        ------
        LoadError
            An answer was wrong, or a call was answered with an error.
        """
        server, _, form = subject.partition("_")
        self.display.begin(f"{step} {subject} {repetition + 1}/{self.plan.repetitions}")
        work = Work(
            name=f"{step}_{subject}",
            target=self.servers[server],
            messages=self.messages[form],
            load=load,
            shape=shape or Shape(),
            duration_s=duration_s,
            warmup_s=WARMUP_S,
            limits=Limits(),
            n_calls=n_calls,
            core=self.core,
            seed=repetition,
        )
        for attempt in range(1, (attempts or self.plan.attempts) + 1):
            before = Reads.of(work.target)
            measured = measure.run(work, repetition, self._nothing, self.display.show)
            counted, read_us = Reads.of(work.target).since(before)
            measured.n_attempts = attempt
            measured.beside = {f"reads {name}": n for name, n in counted.items()}
            if read_us is not None:
                measured.quantities["read_us"] = read_us
            if measured.is_refuted:
                raise LoadError(f"{work.name}: {'; '.join(measured.reasons)}")
            if wants_hits:
                n_calls = measured.result.n_answered + measured.result.n_warmup
                measured.reasons += misread(measured.beside, 0 if form == "dense" else 2 * n_calls)
                measured.valid = not measured.reasons
            if measured.valid:
                break
        self.found.runs.setdefault((step, subject), []).append(measured)
        return measured

    def round(self, step: str, subjects: list[str], repetition: int, **settings: Any) -> None:
        """Measure subjects one after the other, every other repetition in reverse.

        Stored records have to be read, and to be there.
        """
        for subject in subjects if repetition % 2 == 0 else subjects[::-1]:
            self.one(step, subject, repetition, wants_hits=True, **settings)


def misread(counted: dict[str, float], n_reads: float) -> list[str]:
    """Return what is wrong with what a server counted while it should have read `n_reads`.

    On a machine that others use too, a read of Redis may take longer than its budget now and then.
    """
    n_hits = counted.get("reads online.hit", 0.0)
    n_others = sum(counted.values()) - n_hits
    if (1 - MISSED) * n_reads <= n_hits <= n_reads and n_others <= MISSED * n_reads:
        return []
    return [f"{n_reads:,.0f} records should have been read online; the server counted {counted}"]


def offered(calls_per_s: float) -> Poisson:
    """Return independent arrivals at a rate."""
    return Poisson(Rate(per_s=calls_per_s))


def run(plan: Plan, display: Display, core: int | None) -> Found:
    """Measure everything.

    Raises
    ------
    BenchError
        Redis is not installed, a server does not start, a load failed, or a run is no result.
    """
    model = feature_model.prepare()
    bench = Bench(plan, display, core)
    found = bench.found
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scoregate-bench-")))
        store, rates = feature_loading.measure(
            folder, plan.entities, model.bundle, plan.n_loads, display
        )
        found.figures |= {f"load_{table}_records_per_s": each for table, each in rates.items()}
        floors = Floors(plan.entities, bench.pairs, plan.n_floor_gets, plan.n_floor_calls)
        stack.enter_context(load_core(core))
        _lmdb(bench, floors, model.repository, store)
        kept = stack.enter_context(redis(folder))
        feature_store_data.fill(kept.url, plan.entities, display.say)
        _redis(bench, floors, model.repository, store, kept)
        _paused(bench, model.repository, store, kept)
        _broken(bench, model.repository, store, kept)
        _peers(bench, kept)
    display.end()
    return found


@contextmanager
def _serving(bench: Bench, name: str, *arguments: Any) -> Iterator[None]:
    with scoregate(name, *arguments) as bench.servers[name]:
        try:
            yield
        finally:
            del bench.servers[name]


def _lmdb(bench: Bench, floors: Floors, repository: Path, store: Path) -> None:
    """CPU per call of LMDB against dense, and one call in flight."""
    plan, found = bench.plan, bench.found
    subjects = ["lmdb_dense", "lmdb_uniform", "lmdb_zipf"]
    with _serving(bench, "lmdb", repository, store, "--features-online", "lmdb"):
        bench.one("warm", "lmdb_uniform", 0, Closed(), n_calls=plan.n_closed)
        del found.runs["warm", "lmdb_uniform"]
        for i in range(plan.repetitions):
            load = offered(plan.lmdb_per_s)
            bench.round("offered", subjects, i, load=load, duration_s=plan.offered_s)
            for order in ORDERS:
                bare_ns = floors.mdb_gets_ns(store / "online", order)
                found.note(f"bare_mdb_gets_us_per_call_{order}", 2 * bare_ns / 1e3)
            bench.round("closed", subjects, i, load=Closed(), n_calls=plan.n_closed)
            bench.round(
                "single", subjects[:2], i, load=Closed(), shape=SINGLE, n_calls=plan.n_single
            )


def _on_redis(store: Path, kept: Redis, *options: str) -> list[Any]:
    return [store, "--features-online", "redis", "--redis-address", kept.address, *options]


def _redis(bench: Bench, floors: Floors, repository: Path, store: Path, kept: Redis) -> None:
    """CPU per call of Redis against dense, and one call in flight."""
    plan, found = bench.plan, bench.found
    subjects = ["redis_dense", "redis_uniform"]
    with _serving(bench, "redis", repository, *_on_redis(store, kept)):
        bench.one("warm", "redis_uniform", 0, Closed(), n_calls=plan.n_closed // 10)
        del found.runs["warm", "redis_uniform"]
        for i in range(plan.repetitions):
            load = offered(plan.redis_per_s)
            bench.round("offered", subjects, i, load=load, duration_s=plan.offered_s)
            for depth in (1, 2):
                bare_us = floors.redis_p50_us(kept.address, depth)
                found.note(f"bare_redis_get_p50_us_depth_{depth}", bare_us)
            bench.round("single", subjects, i, load=Closed(), shape=SINGLE, n_calls=plan.n_single)


def _paused(bench: Bench, repository: Path, store: Path, kept: Redis) -> None:
    """Latency while Redis is stopped: as a server is set by default, and where nothing gives up."""
    plan = bench.plan
    duration_s = PAUSE_AFTER_S + plan.paused_s
    stubborn = (*NEVER_STALLS, *NEVER_OPENS)
    with _serving(bench, "redis", repository, *_on_redis(store, kept)):
        for i in range(plan.n_pauses):
            _while_paused(bench, kept, "paused", i, plan.paused_per_s, PAUSE_AFTER_S, duration_s)
    with _serving(bench, "redis", repository, *_on_redis(store, kept, *stubborn)):
        for i in range(plan.n_pauses):
            _while_paused(bench, kept, "unbroken", i, plan.unbroken_per_s, 0.0, plan.paused_s)


def _while_paused(
    bench: Bench, kept: Redis, step: str, repetition: int, per_s: float, after_s: float,
    duration_s: float,
) -> None:  # fmt: skip
    """Measure one run into which Redis is stopped; again from the beginning if it is not valid."""
    subject = "redis_uniform"
    for attempt in range(1, bench.plan.attempts + 1):
        bench.one("awake", subject, repetition, offered(per_s), duration_s=0.3, attempts=1)
        del bench.found.runs["awake", subject]
        with _pausing_later(kept, WARMUP_S + after_s if after_s else 0.0):
            measured = bench.one(
                step, subject, repetition, offered(per_s), shape=OPEN_SHAPE,
                duration_s=duration_s, attempts=1,
            )  # fmt: skip
        measured.n_attempts = attempt
        if not wait_until(lambda: is_connected(bench.servers["redis"]), RECOVERY_S):
            raise LoadError(f"the server did not find Redis again within {RECOVERY_S:g} s")
        if measured.valid or attempt == bench.plan.attempts:
            break
        bench.found.runs[step, subject].pop()


@contextmanager
def _pausing_later(kept: Redis, after_s: float) -> Iterator[None]:
    """Stop Redis a moment after the block began, until it ends."""
    done = threading.Event()

    def pause() -> None:
        if not done.wait(after_s):
            with kept.paused():
                done.wait()

    thread = threading.Thread(target=pause, name="bench-pause")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _broken(bench: Bench, repository: Path, store: Path, kept: Redis) -> None:
    """Throughput with the breaker open and batch records, against LMDB alone."""
    plan = bench.plan
    # One read in ten seconds tries whether Redis is back; as the breaker does after a while.
    patient = (*NEVER_STALLS, "--redis-breaker-cool-off-ms", "10000")
    with (
        _serving(bench, "lmdb", repository, store, "--features-online", "lmdb"),
        _serving(bench, "redis", repository, *_on_redis(store, kept, *patient)),
        kept.paused(),
    ):
        server = bench.servers["redis"]
        bench.one("opening", "redis_uniform", 0, Closed(), duration_s=1.0, attempts=1)
        del bench.found.runs["opening", "redis_uniform"]
        if not wait_until(lambda: breaker_is(server, OPEN), RECOVERY_S):
            raise LoadError("the breaker of a paused Redis does not open under load")
        for i in range(plan.repetitions):
            subjects = ["lmdb_uniform", "redis_uniform"]
            for subject in subjects if i % 2 == 0 else subjects[::-1]:
                bench.one("broken", subject, i, Closed(), n_calls=plan.n_closed)
        n_hits = sum(
            run.beside.get("reads online.hit", 0.0)
            for run in bench.found.runs["broken", "redis_uniform"]
        )
        if n_hits:
            raise LoadError(f"{n_hits:,.0f} records were read from a Redis that is stopped")


def _peers(bench: Bench, kept: Redis) -> None:
    """Measure the same two reads by redis-py and Feast."""
    from bench import feature_peers

    plan = bench.plan
    bench.display.say("the same two reads by redis-py and Feast")
    bench.found.peers = feature_peers.run(
        str(kept.socket), plan.peers, plan.feast, plan.n_peer_calls
    )
