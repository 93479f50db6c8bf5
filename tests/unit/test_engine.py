"""The engine without sockets or clocks: statuses, routing, decisions, counters, deadlines."""

from __future__ import annotations

import math
import re
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.engine import Engine
from fastpath.errors import PlanError
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.request_id import new_request_id
from fastpath.routing import BucketTable
from fastpath.spec import FeatureSpec, layout_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import SPECS, expected_raw, linear_arm, make_plan

OK, CANCELLED, INVALID, LATE, NOT_FOUND, PRECONDITION, UNAVAILABLE = 0, 1, 3, 4, 5, 9, 14
SPECS_COLUMNS = tuple((spec.name, spec.type) for spec in SPECS)
WALL_NS = 1_700_000_000_123_456_789


class Bench:
    """An engine with one plan, and shorthands to drive it."""

    def __init__(self, **plan: object) -> None:
        self.metrics = Metrics(1)
        self.board = PlanBoard()
        self.plan = make_plan(self.metrics, **plan)  # type: ignore[arg-type]
        self.board.publish(self.plan)
        self.engine = Engine(self.board, self.metrics, 0, fixed_wall_ns=WALL_NS, seed=7)
        self.layout = self.plan.models[0].arms[0].schema.fingerprint

    def dense(self, *values: float, **fields: object) -> pb.ScoreRequest:
        request = pb.ScoreRequest(**fields)  # type: ignore[arg-type]
        request.dense.layout = self.layout
        request.dense.values.extend(values)
        return request

    def one(self, request: pb.ScoreRequest, **time: object) -> tuple[int, pb.ScoreResponse, str]:
        [(status, body, text)] = self.engine.answer(
            [request.SerializeToString()],
            **{"now_ns": 1_000, **time},  # type: ignore[arg-type]
        )
        return status, pb.ScoreResponse.FromString(body), text


def test_an_answer_says_everything_that_a_caller_must_store() -> None:
    bench = Bench()
    request = bench.dense(10.0, 1.0, 2.0, 8.0, request_id="tx-1", routing_key="card-9")
    request.options.provenance = True
    status, answer, text = bench.one(request)
    raw = expected_raw([10.0, 1.0, 2.0, 8.0])
    assert (status, text) == (OK, "")
    assert answer == pb.ScoreResponse(
        request_id="tx-1",
        raw_score=raw,
        score=1 / (1 + math.exp(-raw)),
        decision="block",
        threshold=2.0,
        bucket=BucketTable.from_weights(b"fraud", [10_000]).bucket("card-9"),
        decision_propensity=1.0,
        source_counts=pb.SourceCounts(request=4),
        model="fraud",
        version="1",
        sha256=bytes(range(32)),
        arm="champion",
        plan_generation=1,
        score_kind=pb.SCORE_KIND_PROBABILITY,
        provenance=[pb.FEATURE_SOURCE_REQUEST] * 4,
    )


@pytest.mark.parametrize(
    ("raw", "decision"),
    [(-0.25, "approve"), (0.0, "review"), (1.875, "review"), (2.0, "block"), (50.0, "block")],
)
def test_a_decision_is_the_highest_threshold_that_the_raw_score_reaches(
    raw: float, decision: str
) -> None:
    bench = Bench()
    status, answer, _ = bench.one(bench.dense(0.0, 0.0, 0.0, raw * 8))
    assert (status, answer.raw_score, answer.decision) == (OK, raw, decision)
    assert answer.HasField("threshold") == (decision != "approve")


def test_missing_features_fall_back_to_defaults_and_the_answer_counts_them() -> None:
    bench = Bench()
    request = bench.dense(math.nan, math.inf, 7.0, 8.0)
    request.options.provenance = True
    status, answer, _ = bench.one(request)
    assert status == OK
    assert answer.raw_score == expected_raw([0.0, 0.0, 0.0, 8.0])
    assert answer.source_counts == pb.SourceCounts(request=1, default_value=3)
    assert list(answer.provenance) == [4, 4, 4, 1]
    [slot] = bench.metrics.snapshot().slots
    assert slot.features_missing == {
        "absent": 0, "null": 1, "infinite": 1, "range": 0, "unseen": 1,
    }  # fmt: skip
    assert slot.features_by_source == {"request": 1, "online": 0, "batch": 0, "default": 3}


def test_named_and_dense_features_score_alike() -> None:
    bench = Bench()
    named = pb.ScoreRequest(request_id="a", routing_key="k")
    named.named.values["amount"].number = 10.0
    named.named.values["night"].flag = True
    named.named.values["country"].text = "DE"
    named.named.values["age_days"].number = 8.0
    dense = bench.dense(10.0, 1.0, 2.0, 8.0, request_id="a", routing_key="k")
    assert bench.one(named) == bench.one(dense)


def test_routing_prefers_the_key_then_the_routing_entity_then_the_request_id() -> None:
    bench = Bench()
    table = BucketTable.from_weights(b"fraud", [10_000])
    row = (1.0, 0.0, 0.0, 8.0)
    entities = [
        pb.Entity(role="shop", type="terminal", id="t-1"),
        pb.Entity(role="payer", type="customer", id="c-2"),
        pb.Entity(role="payee", type="customer", id="c-1"),
    ]
    keyed = bench.dense(*row, routing_key="k", entities=entities, request_id="r")
    for order in (entities, entities[::-1]):
        _, by_entity, _ = bench.one(bench.dense(*row, entities=order, request_id="r"))
        # The first role in alphabetical order, whatever the caller's order.
        assert (by_entity.bucket, by_entity.unsticky) == (table.bucket("c-1"), False)
    _, by_key, _ = bench.one(keyed)
    _, by_id, _ = bench.one(bench.dense(*row, request_id="r"))
    assert (by_key.bucket, by_key.unsticky) == (table.bucket("k"), False)
    assert (by_id.bucket, by_id.unsticky) == (table.bucket("r"), True)


def test_arms_are_scored_each_with_its_own_model_in_one_batch() -> None:
    metrics = Metrics(1)
    arms = [
        linear_arm(metrics),
        linear_arm(metrics, name="canary", version="2", intercept=100.0),
    ]
    board = PlanBoard()
    plan = make_plan(metrics, arms=arms, weights=[5_000, 5_000])
    board.publish(plan)
    engine = Engine(board, metrics, 0, fixed_wall_ns=WALL_NS)
    table = plan.models[0].table
    keys = [f"card-{i}" for i in range(200)]
    messages = []
    for i, key in enumerate(keys):
        request = pb.ScoreRequest(routing_key=key, request_id=key)
        request.dense.layout = arms[0].schema.fingerprint
        request.dense.values.extend([float(i), 0.0, 0.0, 8.0])
        messages.append(request.SerializeToString())
    answers = engine.answer(messages, now_ns=5)
    for i, (key, (status, body, _)) in enumerate(zip(keys, answers, strict=True)):
        answer = pb.ScoreResponse.FromString(body)
        arm = table.arm(key)
        assert (status, answer.request_id, answer.arm) == (OK, key, ["champion", "canary"][arm])
        assert answer.raw_score == expected_raw([i, 0, 0, 8.0], [0.0, 100.0][arm])
    snapshot = metrics.snapshot()
    assert (snapshot.batches, snapshot.batch_rows) == (2, 200)
    assert [slot.predictions for slot in snapshot.slots] == [
        sum(table.arm(key) == arm for key in keys) for arm in (0, 1)
    ]


@pytest.mark.parametrize("n_rows", [256, 257, 1_000])
def test_a_full_batch_is_flushed_and_no_row_is_lost(n_rows: int) -> None:
    bench = Bench()
    messages = [
        bench.dense(float(i), 0.0, 0.0, 8.0, request_id=str(i)).SerializeToString()
        for i in range(n_rows)
    ]
    answers = bench.engine.answer(messages, now_ns=5)
    parsed = [pb.ScoreResponse.FromString(body) for _, body, _ in answers]
    assert [a.request_id for a in parsed] == [str(i) for i in range(n_rows)]
    assert [a.raw_score for a in parsed] == [expected_raw([i, 0, 0, 8.0]) for i in range(n_rows)]


def test_a_slab_full_of_wide_rows_is_flushed_and_no_row_is_lost() -> None:
    specs = [FeatureSpec(f"f{i}", "numeric", default=0.0) for i in range(1_024)]
    metrics = Metrics(1)
    bench = Bench()
    bench.board.publish(
        make_plan(bench.metrics, generation=2, arms=[linear_arm(metrics, specs=specs)])
    )
    layout = bench.board.published.models[0].arms[0].schema.fingerprint  # type: ignore[union-attr]
    messages = []
    for i in range(150):
        request = pb.ScoreRequest(request_id=str(i))
        request.dense.layout = layout
        request.dense.values.extend([float(i)] + [0.0] * 1_023)
        messages.append(request.SerializeToString())
    answers = bench.engine.answer(messages, now_ns=5)
    for i, (status, body, text) in enumerate(answers):
        answer = pb.ScoreResponse.FromString(body)
        assert (status, text) == (OK, "")
        assert (answer.request_id, answer.raw_score) == (str(i), 0.25 * i)


def test_expired_and_cancelled_calls_are_dropped_before_they_are_scored() -> None:
    bench = Bench()
    message = bench.dense(1.0, 0.0, 0.0, 8.0).SerializeToString()
    answers = bench.engine.answer(
        [message] * 4,
        now_ns=100,
        flush_ns=200,
        deadlines_ns=[None, 150, 200, 201],
        cancelled={3},
    )
    assert [status for status, _, _ in answers] == [OK, LATE, LATE, CANCELLED]
    snapshot = bench.metrics.snapshot()
    assert snapshot.batch_rows == 1
    assert (snapshot.errors[LATE], snapshot.errors[CANCELLED]) == (2, 1)


def test_durations_run_from_the_complete_message_to_the_encoded_answer() -> None:
    bench = Bench()
    message = bench.dense(1.0, 0.0, 0.0, 8.0).SerializeToString()
    bench.engine.answer([message] * 3, now_ns=1_000, flush_ns=1_000 + 70_000)
    [slot] = bench.metrics.snapshot().slots
    assert slot.duration_sum_ns == 3 * 70_000
    assert slot.duration_buckets == (0, 3, *[0] * 12)


def test_every_error_says_what_and_what_to_do() -> None:
    bench = Bench()
    row = (1.0, 0.0, 0.0, 8.0)
    unknown = bench.dense(*row)
    unknown.dense.layout = 0xABC
    stranger = pb.ScoreRequest()
    stranger.named.values["amont"].number = 1.0
    cases = [
        (bench.dense(*row, model="frod"), NOT_FOUND, 'model "frod".*default model "fraud"'),
        (unknown, PRECONDITION, f"0000000000000abc.*{bench.layout:016x}.*GetModel"),
        (bench.dense(1.0, 2.0), INVALID, "2.*4"),
        (bench.dense(1.0, 0.0, 0.0, math.nan), INVALID, "age_days"),
        (pb.ScoreRequest(), INVALID, "no features: set `dense` or `named`"),
        (stranger, INVALID, "amont"),
    ]
    for request, status, says in cases:
        got, _, text = bench.one(request)
        assert got == status, text
        assert re.search(says, text), text
    [(status, _, text)] = bench.engine.answer([b"\xff\xff"], now_ns=1)
    assert (status, bool(text)) == (INVALID, True)
    errors = bench.metrics.snapshot().errors
    assert (errors[INVALID], errors[NOT_FOUND], errors[PRECONDITION]) == (5, 1, 1)
    assert bench.one(bench.dense(*row))[0] == OK


def test_a_nan_score_is_an_error_and_never_a_decision() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    specs = [FeatureSpec("x", "numeric"), *SPECS[1:]]
    board.publish(make_plan(metrics, arms=[linear_arm(metrics, specs=specs)]))
    engine = Engine(board, metrics, 0)
    request = pb.ScoreRequest()
    request.named.values["age_days"].number = 1.0
    [(status, _, text)] = engine.answer([request.SerializeToString()], now_ns=1)
    assert status == PRECONDITION
    assert "NaN" in text
    assert metrics.snapshot().slots[0].predictions == 0


def test_without_a_plan_calls_are_unavailable() -> None:
    engine = Engine(PlanBoard(), Metrics(1), 0)
    [(status, _, text)] = engine.answer([b""], now_ns=1)
    assert status == UNAVAILABLE
    assert "readyz" in text


@given(
    st.floats(-50, 50, width=32),
    st.floats(-3, 3),
    st.sampled_from(["logit", "identity"]),
)
def test_scores_follow_the_link_and_the_prior(raw: float, shift: float, link: str) -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    specs = [FeatureSpec("raw", "numeric")]
    arm = linear_arm(metrics, specs=specs, link=link, prior_shift=shift, thresholds=())
    board.publish(make_plan(metrics, arms=[arm]))
    request = pb.ScoreRequest()
    value = raw if link == "logit" else abs(raw) / 50
    request.named.values["raw"].number = value * 4
    [(_, body, _)] = Engine(board, metrics, 0).answer([request.SerializeToString()], now_ns=1)
    answer = pb.ScoreResponse.FromString(body)
    exact = answer.raw_score
    assert exact == pytest.approx(value, rel=1e-6, abs=1e-44)
    if link == "logit":
        expected = 1 / (1 + math.exp(-(exact + shift)))
    elif exact in (0.0, 1.0):
        expected = exact
    else:
        odds = exact / (1 - exact) * math.exp(shift)
        expected = odds / (1 + odds)
    assert answer.score == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_a_request_without_an_id_gets_a_uuid_version_7() -> None:
    bench = Bench()
    _, first, _ = bench.one(bench.dense(1.0, 0.0, 0.0, 8.0))
    _, second, _ = bench.one(bench.dense(1.0, 0.0, 0.0, 8.0))
    assert first.request_id == new_request_id(7, WALL_NS)
    assert first.request_id != second.request_id
    parsed = uuid.UUID(first.request_id)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == WALL_NS // 1_000_000


def test_timings_are_filled_only_where_they_are_asked_for() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    plan = make_plan(metrics)
    board.publish(plan)
    engine = Engine(board, metrics, 0)
    request = pb.ScoreRequest()
    request.named.values["age_days"].number = 1.0
    plain = request.SerializeToString()
    request.options.timings = True
    now_ns = time.monotonic_ns()
    answers = engine.answer(
        [plain, request.SerializeToString()], now_ns=now_ns - 1_000, flush_ns=now_ns
    )
    without, timed = (pb.ScoreResponse.FromString(body) for _, body, _ in answers)
    assert not without.HasField("timings")
    assert timed.timings.parse_ns > 0
    assert timed.timings.features_ns > 0
    assert timed.timings.total_ns > timed.timings.score_ns > 0


def test_a_pinned_key_goes_to_its_arm_whatever_its_bucket() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    arms = [linear_arm(metrics), linear_arm(metrics, name="canary", version="2")]
    pins = {f"card-{i}": i % 2 for i in range(0, 2000, 2)}
    board.publish(make_plan(metrics, arms=arms, weights=(10_000, 0), overrides={**pins, "é": 1}))
    engine = Engine(board, metrics)
    layout = arms[0].schema.fingerprint

    def arm_of(**fields: str) -> str:
        request = pb.ScoreRequest(**fields)  # type: ignore[arg-type]
        request.dense.layout = layout
        request.dense.values.extend([0.0, 0.0, 0.0, 0.0])
        [(status, body, _)] = engine.answer([request.SerializeToString()], now_ns=0)
        assert status == OK
        return pb.ScoreResponse.FromString(body).arm

    names = ["champion", "canary"]
    for i in range(2000):
        assert arm_of(routing_key=f"card-{i}") == names[pins.get(f"card-{i}", 0)]
    assert arm_of(routing_key="é") == "canary"
    assert arm_of(routing_key="") == "champion"
    # A request id is no key that anybody could pin.
    assert arm_of(request_id="é") == "champion"
    with pytest.raises(PlanError, match="pinned to arm 2"):
        make_plan(metrics, arms=arms, weights=(10_000, 0), overrides={"x": 2})


def test_layouts_of_former_versions_are_read_by_name_or_refused_in_words() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    arm = linear_arm(metrics)
    readable = (("age_days", "numeric"), ("amount", "numeric"), ("gone", "numeric"))
    lacking = (("amount", "numeric"), ("night", "boolean"))  # no age_days, which is required
    mistyped = (*SPECS_COLUMNS[:3], ("age_days", "boolean"))
    former = (readable, lacking, mistyped)
    board.publish(make_plan(metrics, arms=[arm], former_layouts=former))
    engine = Engine(board, metrics)

    def ask(columns: tuple[tuple[str, str], ...], *values: float) -> tuple[int, bytes, str]:
        request = pb.ScoreRequest(request_id="r")
        request.dense.layout = layout_fingerprint(columns)
        request.dense.values.extend(values)
        return engine.answer([request.SerializeToString()], now_ns=0)[0]

    status, body, _ = ask(readable, 8.0, 10.0, 99.0)
    assert status == OK
    assert pb.ScoreResponse.FromString(body).raw_score == expected_raw([10.0, 0.0, 0.0, 8.0])
    own = f"{arm.schema.fingerprint:016x}"
    for columns, words in ((lacking, "lacks .*age_days"), (mistyped, "age_days .*boolean")):
        status, _, text = ask(columns, *[0.0] * len(columns))
        assert status == PRECONDITION
        assert f"{layout_fingerprint(columns):016x}" in text
        assert own in text
        assert re.search(words, text), text
    status, _, text = ask((("never", "numeric"),), 1.0)
    assert status == PRECONDITION
    assert "with 1 values" in text
    assert f"{own}, with 4" in text
