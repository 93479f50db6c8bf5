"""Segments and waiting outcomes: what is sealed has a filter, and is opened for nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastpath.capture import id_hash
from fastpath.ledger import DECISION_TYPE
from server.feedback.filters import may_hold
from server.feedback.joining import ReportedOutcome
from server.feedback.keys import Decider, VersionKey, model_hash
from server.feedback.records import Records

START_MS = 1_790_000_000_000
DECIDER = Decider(VersionKey("fraud", "1", "aa", "champion"), np.array([0.0], np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "decisions.db"
    with closing(sqlite3.connect(tmp_path / "decisions.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def keep(store: Records, ids: list[str], second: int = 0) -> None:
    rows = np.zeros(len(ids), DECISION_TYPE)
    rows["id_hash"] = [id_hash(one) for one in ids]
    rows["decided_time_ms"] = START_MS + second * 1000
    rows["sampling_probability"] = rows["propensity"] = 1.0
    assert store.add(rows, lambda *_: DECIDER).n_kept == len(ids)


def told(*ids: str, label: int = 1, seen: int = 1) -> list[ReportedOutcome]:
    return [ReportedOutcome(one, "", label, START_MS + seen, 1.0, "test") for one in ids]


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(sql).fetchall()


def names(segment: int) -> list[str]:
    return [f"{segment}-{i}" for i in range(50)]


def test_every_sealed_segment_has_a_filter_of_its_decisions(path: Path) -> None:
    with closing(Records(path, segment_s=10)) as store:
        for segment in range(5):
            keep(store, names(segment), 10 * segment)
    filters = dict(query(path, "SELECT n, bits FROM filters"))
    segments = query(path, "SELECT n, sealed FROM segments ORDER BY n")
    assert [n for n, sealed in segments if sealed] == list(filters) == [1, 2, 3, 4]
    for n, bits in filters.items():
        for segment in range(5):
            ids = np.array([id_hash(one)[0] for one in names(segment)], np.uint64).view(np.int64)
            held = may_hold(bits, ids ^ model_hash("fraud"))
            assert held.all() if segment == n - 1 else held.sum() < 10


def test_filters_decide_where_is_looked(path: Path) -> None:
    with closing(Records(path, segment_s=10)) as store:
        for segment in range(4):
            keep(store, names(segment), 10 * segment)
    # Nothing passes this filter, and everything one that is not there.
    query(path, "UPDATE filters SET bits = zeroblob(128) WHERE n = 1")
    query(path, "DELETE FROM filters WHERE n = 2")
    with closing(Records(path, segment_s=10)) as store:
        counts = store.report(told(*(one for n in range(4) for one in names(n))), START_MS)
        assert (counts.accepted, counts.unmatched) == (200, 50)


def test_filters_go_with_their_segments(path: Path) -> None:
    with closing(Records(path, segment_s=10, keep_s=30)) as store:
        for segment in range(9):
            keep(store, names(segment), 10 * segment)
    segments = query(path, "SELECT n FROM segments WHERE sealed = 1 ORDER BY n")
    assert len(segments) < 8
    assert query(path, "SELECT n FROM filters ORDER BY n") == segments


def test_outcomes_wait_in_parts_and_are_found_in_each(path: Path) -> None:
    early = [f"early-{i}" for i in range(100)]
    with closing(Records(path, max_waiting=160)) as store:  # ten in each part
        for first in range(0, 100, 7):
            store.report(told(*early[first : first + 7]), START_MS)
        parts = query(path, "SELECT n_rows, bits IS NULL FROM waiting ORDER BY k")
        assert parts == [(10, 0)] * 9 + [(10, 1)]
        assert store.stats().n_waiting == 100
        keep(store, early[::3])
        assert store.stats().n_waiting == 66
        assert store.joined().n_late == 34
        assert store.report(told(*early[::3]), START_MS).duplicates == 34
    with closing(Records(path, max_waiting=160)) as store:
        keep(store, [one for i, one in enumerate(early) if i % 3])
        assert store.stats().n_waiting == 0
        assert store.report(told(*early), START_MS).duplicates == 100
    # One that takes no more is gone when its last outcome is.
    assert query(path, "SELECT n_rows, bits IS NULL FROM waiting") == [(0, 1)]
    assert len(query(path, "SELECT name FROM sqlite_master WHERE name GLOB 'w_*'")) == 1


def test_what_waits_is_replaced_in_whichever_part_it_is(path: Path) -> None:
    early = [f"early-{i}" for i in range(40)]
    with closing(Records(path, max_waiting=160)) as store:
        store.report(told(*early, label=1, seen=5), START_MS)
        store.report(told(*early[:20], label=0, seen=6), START_MS)
        store.report(told(*early[20:], label=0, seen=4), START_MS)  # observed before
        store.report(told(*early[:5], label=0, seen=8) + told(*early[:5], seen=9), START_MS)
        assert store.stats().n_waiting == 40
        keep(store, early)
        assert store.stats().n_waiting == 0
    labels = dict(query(path, "SELECT id, label FROM d_1"))
    found = [
        labels[int(np.uint64(id_hash(one)[0]).astype(np.int64)) ^ model_hash("fraud")]
        for one in early
    ]
    assert found == [1] * 5 + [0] * 15 + [1] * 20


def test_too_many_that_wait_are_given_up_by_parts_the_oldest_first(path: Path) -> None:
    early = [f"early-{i}" for i in range(200)]
    with closing(Records(path, max_waiting=160)) as store:
        store.report(told(*early), START_MS)
        assert store.stats().n_waiting == 160
        assert store.joined().n_given_up == 40
        keep(store, early)
        assert store.joined().n_late == 160


def test_what_has_waited_too_long_is_given_up(path: Path) -> None:
    with closing(Records(path, max_waiting=160, keep_s=60)) as store:
        store.report(told("old"), START_MS)
        store.report(told("newer"), START_MS + 30_000)
        store.report(told("new"), START_MS + 60_001)
        assert store.stats().n_waiting == 2
        keep(store, ["old", "newer", "new"])
        assert store.joined().n_late == 2


def test_what_a_failed_transaction_did_to_what_waits_is_forgotten(path: Path) -> None:
    with closing(Records(path, max_waiting=160)) as store:
        store.report(told(*(f"a-{i}" for i in range(15))), START_MS)

        def fails(*_: int) -> Decider:
            raise RuntimeError

        rows = np.zeros(1, DECISION_TYPE)
        with pytest.raises(RuntimeError):
            store.add(rows, fails)
        bad = [*told(*(f"b-{i}" for i in range(30))), told("c")[0]._replace(label=None)]  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            store.report(bad, START_MS)
        assert store.stats().n_waiting == 15
        keep(store, [f"a-{i}" for i in range(15)])
        assert store.joined().n_late == 15
