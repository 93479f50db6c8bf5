"""The demo's store without processes: states, their file, the pipeline's rules, quality."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from fastpath.spec import check_group
from server.demo.columns import CUSTOMER_COLUMNS, FEATURES, TERMINAL_COLUMNS
from server.demo.dataset import make_dataset
from server.demo.features import compute_features
from server.demo.groups import demo_groups
from server.demo.pipeline import Pipeline, Target
from server.demo.quality import ranking_quality
from server.demo.simulator import simulate
from server.demo.sizes import Size
from server.demo.states import states_at
from server.demo.tables import load_tables, save_tables
from server.demo.traffic import Rows, Traffic
from server.errors import FeatureStoreError, InputError
from server.features import FeatureWriter, Group
from server.pb.scoregate.v1 import scoring_pb2 as pb

SMALL = Size(n_customers=60, n_terminals=300, n_days=65)
MOMENT = pd.Timestamp("2018-05-20")
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    made = simulate(SMALL, seed=5)
    computed = compute_features(made, as_published=False)
    return made.drop(columns=[n for n in FEATURES if n in made.columns]).join(computed)


# --------------------------------------------------------------------------------- states


def test_states_are_what_a_transaction_at_that_moment_would_find(frame: pd.DataFrame) -> None:
    """A transaction that is really there, at the moment, has the states as its features."""
    customers, terminals = states_at(frame, MOMENT, computed=True)
    assert (customers.group, terminals.group) == ("customer", "terminal")
    known = frame[frame["TX_DATETIME"] < MOMENT]
    assert len(customers.ids) == known["CUSTOMER_ID"].nunique()
    assert len(terminals.ids) == known["TERMINAL_ID"].nunique()
    assert set(customers.event_time_ms) == {int(MOMENT.timestamp() * 1000)}
    for n in (0, 17, 41):
        customer, terminal = customers.ids[n], terminals.ids[n]
        extra = known.iloc[[-1]].assign(
            CUSTOMER_ID=int(customer), TERMINAL_ID=int(terminal), TX_DATETIME=MOMENT
        )
        with_it = compute_features(
            pd.concat([known, extra], ignore_index=True), as_published=False
        ).iloc[-1]
        np.testing.assert_array_equal(customers.values[n], with_it[list(CUSTOMER_COLUMNS)])
        np.testing.assert_array_equal(terminals.values[n], with_it[list(TERMINAL_COLUMNS)])


def test_a_files_own_features_give_each_entitys_last_row(frame: pd.DataFrame) -> None:
    customers, _ = states_at(frame, MOMENT, computed=False)
    known = frame[frame["TX_DATETIME"] < MOMENT]
    for n in (0, 30):
        own = known[known["CUSTOMER_ID"].astype(str) == customers.ids[n]].iloc[-1]
        np.testing.assert_array_equal(
            customers.values[n], own[list(CUSTOMER_COLUMNS)].astype(np.float32)
        )
        assert customers.event_time_ms[n] == int(own["TX_DATETIME"].timestamp() * 1000)


def test_transactions_without_terminals_have_no_terminal_group(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.drop(columns=["TERMINAL_ID"]).to_parquet(tmp_path / "x.parquet")
    dataset = make_dataset(tmp_path / "x.parquet", SMALL, seed=0)
    assert [table.group for table in dataset.states] == ["customer"]


def test_tables_survive_a_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    tables = states_at(frame, MOMENT, computed=True)
    save_tables(tmp_path / "states.npz", tables)
    for before, after in zip(
        tables, load_tables(tmp_path / "states.npz", ["customer", "terminal"]), strict=True
    ):
        for name, values in vars(before).items():
            np.testing.assert_array_equal(getattr(after, name), values)
    with pytest.raises(InputError, match="--fresh"):
        load_tables(tmp_path / "states.npz", ["device"])


def test_groups_can_be_served() -> None:
    for group in demo_groups(with_terminals=True):
        check_group(group)
    assert [group.name for group in demo_groups(with_terminals=False)] == ["customer"]


# -------------------------------------------------------------------------------- quality


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.5])),
        min_size=2,
        max_size=80,
    )
)
def test_quality_is_that_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    fraud = np.array([f for f, _ in pairs])
    score = np.array([s for _, s in pairs], dtype=np.float32)
    found = ranking_quality(fraud, score)
    if fraud.all() or not fraud.any():
        assert found == {}
        return
    assert found["auc"] == pytest.approx(roc_auc_score(fraud, score), abs=1e-12)
    expected = average_precision_score(fraud, score)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-12)


# ------------------------------------------------------------------------------- pipeline


class Memory(FeatureWriter):
    """A store in memory; `broken` refuses, `hold` blocks."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, list[float]]] = {}
        self.broken = False
        self.go_on = threading.Event()
        self.go_on.set()

    def write(
        self,
        entity_ids: Sequence[str],
        event_time_ms: ArrayLike,
        values: ArrayLike,
        *,
        only_newer: bool = False,
    ) -> int:
        self.go_on.wait(LIMIT_S)
        if self.broken:
            raise FeatureStoreError("the store is gone")
        times, found = np.asarray(event_time_ms).tolist(), np.asarray(values).tolist()
        for entity, moment, record in zip(entity_ids, times, found, strict=True):
            self.records[entity] = (moment, record)
        return len(entity_ids)

    def close(self) -> None:
        pass


CUSTOMER = Group("customer", "customer", (("a", "numeric"),))
TERMINAL = Group("terminal", "terminal", (("b", "numeric"),))


def make_rows(customers: Sequence[int], terminals: Sequence[int]) -> Rows:
    """Rows whose features and time are their own number."""
    n = len(customers)
    number: npt.NDArray[np.float32] = np.arange(n, dtype=np.float32)
    return Rows(
        names=np.array(["a", "b"]),
        features=np.stack([number, number + 0.5], axis=1),
        fraud=np.zeros(n, dtype=np.bool_),
        transaction=np.arange(n).astype(np.str_),
        customer=np.array([f"c{i}" for i in customers]),
        terminal=np.array([f"t{i}" if i >= 0 else "" for i in terminals]),
        event_time_ms=np.arange(n, dtype=np.int64),
        versions=np.array(["1.0"]),
        raw_score=number[np.newaxis],
    )


def make_pipeline(rows: Rows, ahead: int) -> tuple[Pipeline, Memory, Memory]:
    customers, terminals = Memory(), Memory()
    targets = [Target(CUSTOMER, customers), Target(TERMINAL, terminals)]
    return Pipeline(rows, targets, ahead=ahead), customers, terminals


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=12),
    st.integers(2, 9),
    st.integers(0, 3),
)
def test_every_call_finds_its_own_records(
    pairs: list[tuple[int, int]], ahead: int, n_in_flight: int
) -> None:
    """Whenever a call is answered late, it still reads what held just before it."""
    rows = make_rows(*zip(*pairs, strict=True))
    pipeline, customers, terminals = make_pipeline(rows, ahead)
    in_flight: list[int] = []

    def answer(call: int) -> None:
        row = call % len(pairs)
        assert customers.records[rows.customer[row]] == (row, [row])
        if rows.terminal[row]:
            assert terminals.records[rows.terminal[row]] == (row, [row + 0.5])
        in_flight.remove(call)
        pipeline.answered(call)

    def shares_entity(call: int, other: int) -> bool:
        a, b = pairs[call % len(pairs)], pairs[other % len(pairs)]
        return a[0] == b[0] or (a[1] == b[1] and a[1] >= 0)

    with pipeline:
        for call in range(2 * len(pairs)):
            # The next call of an entity waits for this one's answer: give those first.
            for other in [o for o in in_flight if shares_entity(call, o)]:
                answer(other)
            while len(in_flight) > n_in_flight:
                answer(in_flight[0])
            pipeline.wait(call)
            in_flight.append(call)
        for call in list(in_flight):
            answer(call)


def test_a_store_that_is_gone_holds_nothing_up_and_catches_up() -> None:
    rows = make_rows([0, 1, 2] * 4, range(12))
    pipeline, customers, terminals = make_pipeline(rows, ahead=2)
    customers.broken = True
    with pipeline:
        for call in range(6):
            pipeline.wait(call)
            pipeline.answered(call)
        until(lambda: pipeline.state()["error"] == "the store is gone")
        assert not customers.records
        assert pipeline.state()["written"] == 0
        customers.broken = False
        until(lambda: pipeline.state()["waiting"] == 0)
        assert pipeline.state()["error"] == ""
    # The newest of each entity, also of calls that went without.
    assert set(customers.records) == {"c0", "c1", "c2"}
    assert min(moment for moment, _ in customers.records.values()) >= 3
    assert len(terminals.records) >= 6


def test_a_store_that_hangs_is_waited_for_once() -> None:
    rows = make_rows(range(50), range(50))
    pipeline, customers, _ = make_pipeline(rows, ahead=2)
    customers.go_on.clear()
    with pipeline:
        waited = [pipeline.wait(call) for call in range(50)]
        assert waited[0] > 0
        assert not any(waited[1:])
        customers.go_on.set()
        until(lambda: len(customers.records) >= 50)


def test_a_group_that_the_rows_cannot_fill() -> None:
    rows = make_rows([0], [0])
    device = Group("device", "device", (("a", "numeric"),))
    with pytest.raises(InputError, match="no entity of type 'device'"):
        Pipeline(rows, [Target(device, Memory())], ahead=2)
    other = Group("customer", "customer", (("shoe_size", "numeric"),))
    with pytest.raises(InputError, match="lack: shoe_size"):
        Pipeline(rows, [Target(other, Memory())], ahead=2)


# --------------------------------------------------------------------------------- traffic


def test_with_a_store_requests_hold_what_only_the_caller_knows() -> None:
    rows = make_rows(range(200), range(200))
    traffic = Traffic(rows, [("b", "numeric")], layout=7, incomplete_share=0.0)
    assert not traffic.is_incomplete.any()
    for row in range(200):
        request = pb.ScoreRequest.FromString(traffic.request(row, 0))
        assert [entity.type for entity in request.entities] == ["customer", "terminal"]
        if request.WhichOneof("features") == "dense":
            assert list(request.dense.values) == [row + 0.5]
        else:
            assert set(request.named.values) == {"b"}
