"""Stored features in the engine: order of sources, ages, layouts, limits, provenance, counters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.spec import FallbackLimits, FeatureSpec, GroupSpec, layout_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import COEFFICIENTS, linear_arm, make_plan
from tests.support.stored import (
    CUSTOMER,
    DAY_MS,
    GROUPS,
    NAN,
    NOW_MS,
    SPECS,
    TERMINAL,
    StoredWorld,
    key,
    record,
)

OK, INVALID, PRECONDITION = 0, 3, 9
C1, T1 = key("customer", "c1"), key("terminal", "t1")


def reads_of(answer: pb.ScoreResponse) -> dict[str, tuple[str, str]]:
    name = pb.ReadOutcome.Name
    return {
        read.group: (
            name(read.online).removeprefix("READ_OUTCOME_").lower(),
            name(read.batch).removeprefix("READ_OUTCOME_").lower(),
        )
        for read in answer.group_reads
    }


def raw_of(row: list[float]) -> float:
    weights = np.resize(np.array(COEFFICIENTS), len(row))
    return float(np.float32(math.fsum(w * x for w, x in zip(weights, row, strict=True))))


@pytest.mark.parametrize("delay_ns", [0, 300_000], ids=["at once", "later"])
def test_records_fill_what_the_request_left_out(delay_ns: int) -> None:
    world = StoredWorld()
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0], age_ms=5), delay_ns=delay_ns)
    world.store.set(T1, record(TERMINAL, [0.25], age_ms=9), delay_ns=delay_ns)
    status, answer, text = world.one(world.request(amount=16.0, mean=4.0))
    assert (status, text) == (OK, "")
    assert answer.raw_score == raw_of([16.0, 7.0, 4.0, 1.0, 0.25])
    assert world.sources(answer) == {
        "amount": "request",
        "n_day": "online",
        "mean": "request",
        "vip": "online",
        "risk": "online",
    }
    assert answer.source_counts == pb.SourceCounts(request=2, online=3)
    assert reads_of(answer) == {"customer": ("hit", "not_read"), "terminal": ("hit", "not_read")}
    assert [read.online_age_ms for read in answer.group_reads] == [5, 9]
    assert not any(read.HasField("batch_age_ms") for read in answer.group_reads)
    assert world.store.asked == [C1, T1]
    snapshot = world.metrics.snapshot()
    assert snapshot.online_reads["hit"] == 2
    assert snapshot.waits == (delay_ns > 0)
    [slot] = snapshot.slots
    assert set(slot.fallbacks.values()) == {0}
    assert slot.features_by_source == {"request": 2, "online": 3, "batch": 0, "default": 0}


def test_a_group_whose_features_the_request_holds_is_not_read() -> None:
    world = StoredWorld()
    status, answer, _ = world.one(world.request(amount=1.0, n_day=1.0, mean=1.0, vip=1.0))
    assert status == OK
    assert world.store.asked == [T1]
    assert reads_of(answer)["customer"] == ("not_read", "not_read")


def test_a_dense_row_of_the_request_layout_reads_all_groups() -> None:
    world = StoredWorld()
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0]))
    request = world.request()
    schema = linear_arm(world.metrics, specs=SPECS, groups=GROUPS).schema
    request.dense.layout = layout_fingerprint(schema.request_columns)
    request.dense.values.append(16.0)
    status, answer, text = world.one(request)
    assert (status, text) == (OK, "")
    assert world.sources(answer)["n_day"] == "online"
    assert answer.raw_score == raw_of([16.0, 7.0, 8.0, 1.0, 0.5])


def test_the_batch_record_comes_after_the_online_one_and_the_default_last() -> None:
    batch = {"customer": {C1: record(CUSTOMER, [70.0, 80.0, 1.0], age_ms=DAY_MS)}}
    world = StoredWorld(batch=batch)
    # The online record has one usable value: one is NaN, one is older than its own time to live.
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, NAN], age_ms=11_000))
    _, answer, _ = world.one(world.request(amount=1.0))
    assert world.sources(answer) == {
        "amount": "request",
        "n_day": "online",
        "mean": "batch",
        "vip": "batch",
        "risk": "default",
    }
    assert reads_of(answer) == {"customer": ("hit", "hit"), "terminal": ("absent", "not_read")}
    assert answer.group_reads[0].online_age_ms == 11_000
    assert answer.group_reads[0].batch_age_ms == DAY_MS
    [slot] = world.metrics.snapshot().slots
    fallen = {pair: n for pair, n in slot.fallbacks.items() if n}
    assert fallen == {("batch", "customer"): 2, ("default", "terminal"): 1}


def test_batch_records_of_a_group_without_online_ones_are_no_fallback() -> None:
    nightly = CUSTOMER._replace(online=False)
    batch = {"customer": {C1: record(nightly, [7.0, 8.0, 1.0], age_ms=DAY_MS)}}
    limits = FallbackLimits(degrade_over=0)
    world = StoredWorld(groups=(nightly, TERMINAL), batch=batch, limits=limits)
    world.store.set(T1, record(TERMINAL, [0.25]))
    _, answer, _ = world.one(world.request(amount=1.0))
    assert not answer.degraded
    assert answer.source_counts == pb.SourceCounts(request=1, online=1, batch=3)
    assert world.store.asked == [T1]
    [slot] = world.metrics.snapshot().slots
    assert set(slot.fallbacks.values()) == {0}


@pytest.mark.parametrize(
    ("age_ms", "outcome", "source"),
    [
        (-5_000, "hit", "online"),  # from after the event: as fresh as can be
        (3_600_000, "hit", "online"),
        (3_600_001, "stale", "default"),
    ],
)
def test_online_records_live_as_long_as_their_group_says(
    age_ms: int, outcome: str, source: str
) -> None:
    world = StoredWorld()
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0], age_ms=age_ms))
    _, answer, _ = world.one(world.request(amount=1.0))
    assert reads_of(answer)["customer"][0] == outcome
    assert world.sources(answer)["n_day"] == source
    assert answer.group_reads[0].online_age_ms == max(age_ms, 0)


@pytest.mark.parametrize(("days", "outcome"), [(7, "hit"), (7.001, "stale")])
def test_batch_records_live_as_a_whole(days: float, outcome: str) -> None:
    batch = {"customer": {C1: record(CUSTOMER, [7.0, 8.0, 1.0], age_ms=int(days * DAY_MS))}}
    world = StoredWorld(batch=batch)
    _, answer, _ = world.one(world.request(amount=1.0))
    assert reads_of(answer)["customer"] == ("absent", outcome)
    assert answer.source_counts.batch == (3 if outcome == "hit" else 0)


def test_ages_count_from_now_where_the_request_has_no_time() -> None:
    world = StoredWorld()
    world.store.set(T1, record(TERMINAL, [0.25], age_ms=59_000))
    request = world.request(amount=1.0)
    request.event_time_ms = 0
    assert world.one(request)[1].group_reads[1].online_age_ms == 59_000
    request.event_time_ms = NOW_MS + 2_000
    assert reads_of(world.one(request)[1])["terminal"][0] == "stale"


def test_records_of_an_older_layout_are_read_by_name_and_foreign_ones_are_not() -> None:
    older = (("vip", "boolean"), ("n_day", "numeric"), ("gone", "numeric"))
    group = CUSTOMER._replace(columns=older)
    former = [
        FeatureSpec("amount", "numeric", default=1.0),
        FeatureSpec("n_day", "numeric", default=2.0, source="customer"),
    ]
    world = StoredWorld()
    arms = [
        linear_arm(world.metrics, specs=SPECS, groups=GROUPS),
        linear_arm(world.metrics, specs=former, groups=[group], name="canary", version="0"),
    ]
    # All traffic goes to the first arm; the second declares what older records look like.
    world.board.publish(make_plan(world.metrics, generation=9, arms=arms, weights=(10_000, 0)))
    world.store.set(C1, record(group, [1.0, 7.0, 99.0]))
    world.store.set(key("customer", "c2"), record(CUSTOMER, [1.0], columns=[("x", "numeric")]))
    _, answer, _ = world.one(world.request(amount=1.0))
    assert world.sources(answer)["n_day"] == "online"
    assert world.sources(answer)["vip"] == "online"
    assert world.sources(answer)["mean"] == "default"
    _, answer, _ = world.one(world.request(amount=1.0, customer="c2"))
    assert reads_of(answer)["customer"][0] == "foreign"
    assert answer.source_counts.online == 0


@pytest.mark.parametrize("cut", [0, 5, 15, 16, 17, 27, 29])
def test_records_of_a_wrong_size_are_malformed(cut: int) -> None:
    world = StoredWorld()
    world.store.set(C1, (record(CUSTOMER, [7.0, 8.0, 1.0]) + b"xyz")[:cut])
    status, answer, _ = world.one(world.request(amount=1.0))
    assert status == OK
    assert reads_of(answer)["customer"][0] == "malformed"
    assert world.metrics.snapshot().online_reads["malformed"] == 1


def test_values_of_records_obey_the_features_rules() -> None:
    specs = [
        FeatureSpec("a", "numeric", default=-1.0, minimum=-5.0, maximum=10.0, source="g"),
        SPECS[0],
        FeatureSpec("b", "numeric", minimum=0.0, maximum=10.0, on_range="clip", source="g",
                    default=-0.0 + 1.0),
        FeatureSpec("c", "numeric", default=2.0, maximum=10.0, on_range="reject", source="g"),
        FeatureSpec("d", "boolean", default=1.0, source="g"),
        FeatureSpec("e", "categorical", default=0.0, vocabulary=("x", "y"), source="g"),
        FeatureSpec("f", "numeric", default=3.0, source="g"),
    ]  # fmt: skip
    columns = tuple((s.name, s.type) for s in specs if s.source == "g")
    group = GroupSpec("g", "customer", columns)
    world = StoredWorld(groups=[group], specs=specs)
    names = {spec.name: spec.default for spec in specs}
    for values, kept in (
        ([10.0, 5.0, 10.0, 0.0, 1.0, 9.0], {"a": 10, "b": 5, "c": 10, "d": 0, "e": 1, "f": 9}),
        ([11.0, 11.0, 11.0, 0.5, 2.0, math.inf], {"b": 10}),
        ([NAN, NAN, NAN, NAN, NAN, NAN], {}),
        ([-math.inf, -3.0, math.inf, 2.0, -1.0, -math.inf], {"b": 0}),
    ):
        world.store.set(key("g", "c1"), record(group, values))
        status, answer, _ = world.one(world.request(amount=1.0))
        assert status == OK
        row = [kept.get(s.name, 1.0 if s.name == "amount" else names[s.name]) for s in specs]
        assert answer.raw_score == raw_of([float(x) for x in row])
        assert answer.source_counts.online == len(kept)


def test_a_request_value_that_is_out_of_range_is_clipped_or_refused() -> None:
    specs = [
        FeatureSpec("a", "numeric", default=1.0, minimum=0.0, maximum=8.0, on_range="clip"),
        FeatureSpec("b", "numeric", default=1.0, minimum=-8.0, maximum=8.0, on_range="reject"),
    ]
    world = StoredWorld(groups=(), specs=specs)
    status, answer, _ = world.one(world.request(a=9.0, b=8.0))
    assert (status, answer.raw_score) == (OK, raw_of([8.0, 8.0]))
    assert world.one(world.request(a=-9.0, b=8.0))[1].raw_score == raw_of([0.0, 8.0])
    status, _, text = world.one(world.request(a=9.0, b=-9.0))
    assert status == INVALID
    assert text == 'feature "b" is -9, outside its range of -8 to 8; send a value inside, or none'
    # Infinite is no number to clip or to refuse: it is missing.
    assert world.one(world.request(a=math.inf, b=math.inf))[1].raw_score == raw_of([1.0, 1.0])


def test_the_entity_is_found_by_type_and_role_whatever_the_order() -> None:
    payee = TERMINAL._replace(name="payee", entity="customer", role="payee")
    specs = [SPECS[0], SPECS[4]._replace(source="payee")]
    world = StoredWorld(groups=[payee], specs=specs)
    for reverse in (False, True):
        request = world.request(amount=1.0, customer="", terminal="")
        people = [("payer", "a"), ("payee", "z"), ("payee", "m")]
        for role, name in reversed(people) if reverse else people:
            request.entities.add(role=role, type="customer", id=name)
        world.one(request)
    assert world.store.asked == [key("payee", "m")] * 2


@pytest.mark.parametrize("customer", ["", "x" * 257])
def test_a_request_without_a_usable_entity_reads_nothing(customer: str) -> None:
    world = StoredWorld()
    status, answer, _ = world.one(world.request(amount=1.0, customer=customer, terminal=""))
    assert status == OK
    assert world.store.asked == []
    assert reads_of(answer) == {
        "customer": ("no_entity", "not_read"),
        "terminal": ("no_entity", "not_read"),
    }
    assert world.metrics.snapshot().online_reads["no_entity"] == 2


def test_an_id_of_256_bytes_is_read() -> None:
    world = StoredWorld()
    world.one(world.request(amount=1.0, customer="é" * 128, terminal=""))
    assert world.store.asked == [key("customer", "é" * 128)]


@pytest.mark.parametrize(
    ("limits", "status", "degraded"),
    [
        (FallbackLimits(), OK, False),
        (FallbackLimits(degrade_over=2), OK, False),
        (FallbackLimits(degrade_over=1), OK, True),
        (FallbackLimits(degrade_features=("risk",)), OK, True),
        (FallbackLimits(degrade_features=("n_day",)), OK, False),
        (FallbackLimits(degrade_over=0, reject_over=2), OK, True),
        (FallbackLimits(reject_over=1), PRECONDITION, False),
        (FallbackLimits(reject_features=("mean",)), PRECONDITION, False),
        (FallbackLimits(reject_features=("amount",)), OK, False),
    ],
)
def test_limits_degrade_or_refuse(limits: FallbackLimits, status: int, degraded: bool) -> None:
    batch = {"customer": {C1: record(CUSTOMER, [NAN, 80.0, NAN])}}
    world = StoredWorld(limits=limits, batch=batch)
    world.store.set(C1, record(CUSTOMER, [7.0, NAN, 1.0]))
    # mean comes from the batch record, risk from its default: two fall back.
    got, answer, text = world.one(world.request(amount=1.0))
    assert (got, answer.degraded) == (status, degraded)
    if status != OK:
        assert '2 features fell back, "mean" among them' in text
        assert world.metrics.snapshot().errors[PRECONDITION] == 1
    [slot] = world.metrics.snapshot().slots
    assert slot.degraded == degraded


def test_a_required_feature_may_come_from_the_store() -> None:
    specs = [SPECS[0], SPECS[1]._replace(required=True), *SPECS[2:]]
    world = StoredWorld(specs=specs)
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0]), delay_ns=1000)
    assert world.one(world.request(amount=1.0))[0] == OK
    status, _, text = world.one(world.request(amount=1.0, customer="c9"))
    assert status == INVALID
    assert 'feature "n_day" is required' in text


def test_a_plan_without_stores_serves_defaults() -> None:
    world = StoredWorld(with_store=False)
    status, answer, _ = world.one(world.request(amount=1.0))
    assert status == OK
    assert answer.source_counts == pb.SourceCounts(request=1, default_value=4)
    assert reads_of(answer) == {
        "customer": ("not_read", "not_read"),
        "terminal": ("not_read", "not_read"),
    }


def usable(spec: FeatureSpec, value: float) -> bool:
    return (
        math.isfinite(value)
        and spec.minimum <= value <= spec.maximum
        and (spec.type != "boolean" or value in (0.0, 1.0))
    )


def reference(request: dict[str, float], online: Any, batch: Any) -> list[tuple[str, float]]:
    """Resolve as docs/features.md says, feature by feature, without a thought for speed."""
    row = []
    for spec in SPECS:
        if spec.name in request and usable(spec, request[spec.name]):
            row.append(("request", request[spec.name]))
            continue
        found = ("default", spec.default)
        group = next((g for g in GROUPS if g.name == spec.source), None)
        if group is not None:
            index = [name for name, _ in group.columns].index(spec.name)
            ttl_s = group.ttl_s if math.isnan(spec.ttl_s) else spec.ttl_s
            for source, table, limit_s in (
                ("batch", batch, group.batch_max_age_s),
                ("online", online, ttl_s),
            ):
                if group.name in table:
                    age_ms, values = table[group.name]
                    if age_ms <= limit_s * 1000 and usable(spec, values[index]):
                        found = (source, values[index])
        row.append(found)
    return row


NUMBERS = st.sampled_from([0.0, 1.0, 2.5, 1000.0, 1001.0, -1.0, NAN, math.inf])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, tuple[int, list[float]]]:
    ages = st.sampled_from([0, 9_999, 10_001, 59_000, 61_000, DAY_MS, 8 * DAY_MS])
    table = {}
    for group in GROUPS:
        if draw(st.booleans()):
            n = len(group.columns)
            table[group.name] = draw(ages), draw(st.lists(NUMBERS, min_size=n, max_size=n))
    return table


@given(
    values=st.dictionaries(st.sampled_from([s.name for s in SPECS]), NUMBERS),
    online=tables(),
    batch=tables(),
    delays=st.lists(st.sampled_from([0, 1, 1_000_000]), min_size=2, max_size=2),
)
def test_resolution_equals_the_documented_order(
    values: dict[str, float], online: Any, batch: Any, delays: list[int]
) -> None:
    records = {
        group.name: {key(group.name, i): record(group, batch[group.name][1],
                                                age_ms=batch[group.name][0])}
        for group, i in zip(GROUPS, ("c1", "t1"), strict=True)
        if group.name in batch
    }  # fmt: skip
    world = StoredWorld(batch=records)
    for group, i, delay_ns in zip(GROUPS, ("c1", "t1"), delays, strict=True):
        if group.name in online:
            age_ms, row = online[group.name]
            world.store.set(
                key(group.name, i), record(group, row, age_ms=age_ms), delay_ns=delay_ns
            )
    status, answer, text = world.one(world.request(**values))  # type: ignore[arg-type]  # no feature is named so
    assert (status, text) == (OK, "")
    want = reference(values, online, batch)
    assert list(world.sources(answer).values()) == [source for source, _ in want]
    assert answer.raw_score == raw_of([float(np.float32(value)) for _, value in want])
