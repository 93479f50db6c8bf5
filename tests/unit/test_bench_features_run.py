"""The features benchmark's own parts: requests, floors, counters, figures, loading, Redis."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lmdb
import numpy as np
import pytest

from bench import feature_loading, feature_model
from bench.errors import BenchError, LoadError
from bench.feature_figures import summary
from bench.feature_plan import FULL, QUICK, Plan
from bench.feature_servers import OPEN, Reads, breaker_is, redis, wait_until
from bench.feature_store_data import CUSTOMER, TERMINAL, Sizes, chunks, keys, pairs
from bench.features import Found, misread
from bench.targets import Target
from fastpath.record import decode_record
from fastpath.schema import Schema
from fastpath.spec import FeatureSpec, layout_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb

SIZES = Sizes(300, 40)
SOURCES = {name: group.name for group in (CUSTOMER, TERMINAL) for name, _ in group.columns}


def target(counters: dict[str, float]) -> Target:
    return cast("Target", SimpleNamespace(name="x", counters=lambda: counters))


def test_both_forms_of_a_request_ask_for_the_same_score() -> None:
    chosen = pairs(SIZES, 200, "uniform", seed=2)
    rows = feature_model.whole_rows(SIZES, chosen, seed=3)
    scores = np.arange(200, dtype=np.float32)
    stored, dense = (
        [pb.ScoreRequest.FromString(message.body) for message in made]
        for made in (
            feature_model.requests(chosen, rows, scores, dense=False),
            feature_model.requests(chosen, rows, scores, dense=True),
        )
    )
    specs = [
        FeatureSpec(name, "numeric", source=SOURCES.get(name, "request"))
        for name in feature_model.NAMES
    ]
    schema = Schema(specs, (CUSTOMER, TERMINAL))
    (customers,), (terminals,) = chunks(CUSTOMER, 300), chunks(TERMINAL, 40)
    for i, (short, whole) in enumerate(zip(stored, dense, strict=True)):
        assert whole.dense.layout == schema.fingerprint
        assert short.dense.layout == layout_fingerprint(schema.request_columns)
        customer, terminal = chosen[i]
        held = customers.values[int(customer)], terminals.values[int(terminal)]
        np.testing.assert_array_equal(whole.dense.values, np.hstack([rows[i, :3], *held]))
        assert short.dense.values == whole.dense.values[:3]
        for request in (short, whole):
            found = {(x.role, x.type): x.id for x in request.entities}
            assert found == {
                ("payer", "customer"): chosen[i][0],
                ("payee", "terminal"): chosen[i][1],
            }
        assert (short.request_id, short.event_time_ms) == (whole.request_id, whole.event_time_ms)
    assert len({request.request_id for request in stored}) == 200


def test_an_answer_has_to_carry_its_own_rows_score() -> None:
    chosen = pairs(SIZES, 5, "zipf", seed=2)
    rows = feature_model.whole_rows(SIZES, chosen, seed=3)
    scores = np.array([0.5, -1.5, 3.25, 0.1, 7.0], np.float32)
    made = feature_model.requests(chosen, rows, scores, dense=False)
    assert [message.expected_raw for message in made] == scores.tolist()
    assert {message.check for message in made} == {"score"}


@pytest.mark.parametrize(
    ("counted", "n_reads", "is_right"),
    [
        ({}, 0, True),
        ({"reads online.hit": 4.0}, 0, False),
        ({"reads online.hit": 10_000.0}, 10_000, True),
        ({"reads online.hit": 9_992.0, "reads online.timeout": 8.0}, 10_000, True),
        ({"reads online.hit": 9_980.0, "reads online.timeout": 20.0}, 10_000, False),
        ({"reads online.hit": 10_001.0}, 10_000, False),
        ({"reads batch.hit": 10_000.0}, 10_000, False),
        ({}, 10_000, False),
    ],
)
def test_records_have_to_be_read(counted: dict[str, float], n_reads: int, is_right: bool) -> None:
    assert (misread(counted, n_reads) == []) is is_right


def test_reads_are_counted_by_outcome_and_timed() -> None:
    name = "scoregate_feature_reads_total"
    duration = "scoregate_feature_read_duration_seconds"
    first = {
        f'{name}{{table="online",outcome="hit"}}': 5.0,
        f'{name}{{outcome="hit",table="batch"}}': 2.0,
        f"{duration}_count": 10.0,
        f"{duration}_sum": 1.0,
    }
    before = Reads.of(target(first))
    assert before.outcomes == {"online.hit": 5.0, "batch.hit": 2.0}
    assert before.since(before) == ({}, None)
    more = {key: value * 2 for key, value in first.items()}
    assert Reads.of(target(more)).since(before) == ({"online.hit": 5.0, "batch.hit": 2.0}, 1e5)
    with pytest.raises(LoadError, match="say nothing of stored features"):
        Reads.of(target({"other": 1.0}))


def test_a_breaker_is_open_where_every_loops_is() -> None:
    states = {f'scoregate_store_breaker_state{{loop="{i}"}}': OPEN for i in range(2)}
    assert breaker_is(target(states), OPEN)
    states['scoregate_store_breaker_state{loop="1"}'] = 0.0
    assert not breaker_is(target(states), OPEN)
    assert breaker_is(target(states), OPEN, 0.0)
    assert not breaker_is(target({}), OPEN)


def made_up(plan: Plan = FULL) -> Found:
    """Three repetitions of everything, with figures that are easy to divide."""
    found = Found(plan)

    def run(step: str, subject: str, **quantities: list[float]) -> None:
        base = {"p50_us": 1.0, "p99_us": 1.0, "p999_us": 5800.0, "max_us": 1.0, "read_us": 0.5}
        found.runs[step, subject] = [
            cast(
                "Any",
                SimpleNamespace(
                    quantities=base | {name: each[i] for name, each in quantities.items()},
                    load={"message_bytes": 100},
                    reasons=[],
                    beside={"reads online.timeout": 7.0},
                    run=f"{step}_{subject}",
                    repetition=i,
                    to_json=dict,
                ),
            )
            for i in range(3)
        ]

    for step in ("offered", "closed"):
        run(step, "lmdb_dense", cpu_us_per_call=[10, 11, 12])
        run(step, "lmdb_uniform", cpu_us_per_call=[12, 13.2, 16])
        run(step, "lmdb_zipf", cpu_us_per_call=[11, 12, 14.5])
    run("offered", "redis_dense", cpu_us_per_call=[10, 10, 10])
    run("offered", "redis_uniform", cpu_us_per_call=[20, 24, 30])
    run("single", "lmdb_dense")
    run("single", "lmdb_uniform")
    run("single", "redis_dense", p50_us=[40, 41, 42])
    run("single", "redis_uniform", p50_us=[70, 72, 80])
    run("paused", "redis_uniform")
    run("unbroken", "redis_uniform", p999_us=[5500, 6100, 6200])
    for subject, rate in (("lmdb_uniform", 100), ("redis_uniform", 95)):
        run("broken", subject, calls_per_cpu_s=[rate] * 3, calls_per_s=[1] * 3, busy_share=[1] * 3)
    found.figures = {
        "bare_mdb_gets_us_per_call_uniform": [2, 2, 2],
        "bare_mdb_gets_us_per_call_zipf": [1, 1, 1],
        "bare_redis_get_p50_us_depth_1": [20, 20, 20],
        "bare_redis_get_p50_us_depth_2": [25, 25, 25],
        "load_online_records_per_s": [400_000, 500_000],
        "load_batch_records_per_s": [200_000, 100_000],
    }
    return found


def test_figures_are_differences_and_ratios_within_a_repetition() -> None:
    values, targets = summary(made_up())
    added = values["added_cpu_us_per_call_lmdb_uniform"]
    assert added.repetitions == pytest.approx((2, 2.2, 4))
    met = {promise.name: (round(promise.value, 6), promise.met) for promise in targets}
    assert met == {
        "added_cpu_ratio_lmdb_uniform_to_bare_gets": (1.1, True),
        "added_cpu_ratio_lmdb_zipf_to_bare_gets": (1.0, True),
        "cpu_ratio_redis_to_dense": (2.4, True),
        "added_p50_ratio_redis_to_bare_get": (1.55, False),
        "latency_p999_us_redis_paused": (5800, True),
        "latency_p999_us_redis_paused_before_breaker": (6100, False),
        "throughput_ratio_breaker_open_to_lmdb": (0.95, True),
        "load_online_records_per_s": (450_000, True),
        "load_batch_records_per_s": (150_000, False),
    }
    assert values["valid"] is True
    assert len(values["runs"]) == 3 * len(made_up().runs)


def test_a_small_load_is_no_promise() -> None:
    values, targets = summary(made_up(QUICK))
    assert values["load_online_records_per_s"].median == 450_000
    assert not [promise for promise in targets if promise.name.startswith("load_")]


def test_a_run_that_is_not_valid_spoils_the_file() -> None:
    found = made_up()
    found.runs["single", "redis_dense"][1].reasons.append("the machine slept")
    values, _ = summary(found)
    assert values["valid"] is False
    assert values["invalid_reasons"] == ["single_redis_dense, repetition 2: the machine slept"]


def test_what_is_loaded_is_what_was_made(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    columns = [{"name": name, "type": kind} for name, kind in CUSTOMER.columns]
    group = {"name": "customer", "entity": "customer", "columns": columns}
    features = [{"name": "customer_n_1d", "type": "numeric", "source": "customer"}]
    schema.write_text(json.dumps({"features": features, "groups": [group]}))
    file = feature_loading.parquet_file(tmp_path, CUSTOMER, 300)
    assert feature_loading.load(file, CUSTOMER, "online", tmp_path / "store", schema) > 0
    (part,) = chunks(CUSTOMER, 300)
    with lmdb.open(str(tmp_path / "store/online"), readonly=True) as env, env.begin() as txn:
        for i, key in enumerate(keys(CUSTOMER, 300)):
            _, _, values = decode_record(txn.get(key) or b"")
            np.testing.assert_array_equal(values, part.values[i])
    file.write_bytes(b"nothing")
    with pytest.raises(BenchError, match="loading customer, batch, failed"):
        feature_loading.load(file, CUSTOMER, "batch", tmp_path / "store", schema)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_redis_lives_as_long_as_its_block(tmp_path: Path) -> None:
    def ping(timeout_s: float) -> bytes:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout_s)
            probe.connect(str(tmp_path / "redis.sock"))
            probe.sendall(b"PING\r\n")
            return probe.recv(16)

    with redis(tmp_path) as kept:
        assert ping(5.0) == b"+PONG\r\n"
        with kept.paused(), pytest.raises(TimeoutError):
            ping(0.1)
        assert ping(5.0) == b"+PONG\r\n"
    assert kept.process.poll() is not None
    assert wait_until(lambda: False, 0.02) is False
