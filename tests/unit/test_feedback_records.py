"""The store of decisions against a dict: what holds, what is counted, what is on disk."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpath.capture import id_hash
from fastpath.ledger import DECISION_TYPE
from server.errors import FeedbackError
from server.feedback.database import RETRACTED
from server.feedback.joining import ReportCounts, ReportedOutcome
from server.feedback.keys import Decider, VersionKey, model_hash
from server.feedback.records import Records
from server.feedback.tallies import UNKNOWN

EDGES = np.array([-1.0, 0.0, 0.5, 2.0], np.float32)
DECIDERS = [
    Decider(VersionKey("fraud", "1", "aa", "champion"), EDGES),
    Decider(VersionKey("fraud", "2", "bb", "canary"), EDGES[:2]),
    Decider(VersionKey("card", "1", "cc", "champion"), EDGES),
]
START_MS = 1_790_000_000_000
Rows = np.ndarray[Any, np.dtype[np.void]]


def decider_of(slot: int, arm: int, generation: int) -> Decider | None:
    return DECIDERS[slot] if slot < len(DECIDERS) else None


def decisions(ids: list[str], *, slot: int = 0, time_ms: int = START_MS, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(ids), DECISION_TYPE)
    rows["id_hash"] = [id_hash(one) for one in ids]
    rows["decided_time_ms"] = time_ms
    rows["entity_hash"] = rng.integers(0, 1 << 63, len(ids), np.uint64)
    rows["raw"] = rng.normal(0, 2, len(ids))
    rows["score"] = 1 / (1 + np.exp(-rows["raw"]))
    rows["decision"] = rng.integers(0, 3, len(ids))
    rows["policy_decision"] = 2
    rows["flags"] = rng.integers(0, 8, len(ids))
    rows["sampling_probability"] = rng.choice([1.0, 0.25, 0.1], len(ids))
    rows["propensity"] = rng.choice([1.0, 0.05, 0.95], len(ids))
    rows["slot"] = slot
    return rows


def outcome(
    request_id: str, label: int = 1, seen: int = 1, *, model: str = "", amount: float = math.nan
) -> ReportedOutcome:
    return ReportedOutcome(request_id, model, label, START_MS + seen, amount, "test")


def recount(path: Path) -> dict[tuple[int, ...], np.ndarray[Any, Any]]:
    """Count the cells again, from the rows, without the store's code."""
    cells: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}
    with closing(sqlite3.connect(path)) as database:
        edges = {
            v: np.frombuffer(blob, np.float32)
            for v, blob in database.execute("SELECT v, edges FROM versions")
        }
        for n, n_rows, n_labels in database.execute(
            "SELECT n, n_rows, n_labels FROM segments"
        ).fetchall():
            rows = database.execute(
                f"SELECT v, raw, score, d, s, p, label, seen, amount FROM d_{n}"
            ).fetchall()
            assert len(rows) == n_rows
            assert sum(row[6] in (0, 1) for row in rows) == n_labels
            for v, raw_bits, score_bits, d, s, p, label, seen, amount in rows:
                assert (label is None) == (seen is None)
                [raw] = struct.unpack("<f", struct.pack("<i", raw_bits))
                [score] = struct.unpack("<f", struct.pack("<i", score_bits))
                bin_ = sum(bool(raw >= edge) for edge in edges[v])
                w = 1 / ((1 if s is None else s) * (1 if p is None else p))
                sums = [1, w, w**2, w * score, w * score**2, w * (amount or 0.0)]
                cell = (n, v, bin_, d, UNKNOWN if label is None else label)
                cells[cell] = cells.get(cell, np.zeros(6)) + sums
    return cells


def check(path: Path) -> None:
    """Hold the tallies to the rows."""
    counted = recount(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tallies = {row[:5]: np.array(row[5:]) for row in database.execute("SELECT * FROM tallies")}
    assert tallies.keys() == counted.keys()
    for cell, sums in counted.items():
        np.testing.assert_allclose(tallies[cell], sums, rtol=1e-9, atol=1e-7)


def labels_of(path: Path) -> Counter[tuple[str, Any, Any, Any]]:
    """Return what is known: (model, label, seen, amount) of every decision."""
    found: Counter[tuple[str, Any, Any, Any]] = Counter()
    with closing(sqlite3.connect(path)) as database:
        for [n] in database.execute("SELECT n FROM segments").fetchall():
            found.update(
                database.execute(
                    f"SELECT model, label, seen, amount FROM d_{n} JOIN versions USING (v)"
                ).fetchall()
            )
    return found


# ----------------------------------------------------------------- against a dict


@dataclass
class Known:
    """What is known of one decision."""

    model: str
    label: int | None = None
    seen: int | None = None
    amount: float | None = None


@dataclass
class Plain:
    """The rules of joining, one outcome after the other."""

    decided: dict[tuple[str, str], Known] = field(default_factory=dict)  # (id, model)
    waiting: dict[tuple[str, str], list[tuple[ReportedOutcome, int]]] = field(default_factory=dict)

    def add(self, ids: list[str], model: str) -> int:
        fresh = [one for one in dict.fromkeys(ids) if (one, model) not in self.decided]
        for one in fresh:
            known = self.decided[one, model] = Known(model)
            came: list[tuple[ReportedOutcome, int]] = []
            for of_model in ("", model):
                came += self.waiting.pop((one, of_model), [])
            for early, _ in sorted(
                came, key=lambda one: (one[0].observed_ms, one[1], *hash_of(one))
            ):
                self.judge(known, early)
        return len(fresh)

    def report(self, outcomes: list[ReportedOutcome], now_ms: int) -> Counter[str]:
        counts: Counter[str] = Counter(accepted=len(outcomes))
        for one in outcomes:
            models = [one.model] if one.model else ["fraud", "card"]
            met = [self.decided[one.request_id, m] for m in models
                   if (one.request_id, m) in self.decided]  # fmt: skip
            if met:
                counts[max((self.judge(known, one) for known in met), key=self.gravity)] += 1
                continue
            counts["unmatched"] += 1
            held = self.waiting.setdefault((one.request_id, one.model), [])
            if not held or one.observed_ms >= held[0][0].observed_ms:
                held[:] = [(one, now_ms)]
        return counts

    @staticmethod
    def gravity(verdict: str) -> int:
        return ["duplicates", "new", "revised"].index(verdict)

    @staticmethod
    def judge(known: Known, one: ReportedOutcome) -> str:
        amount = None if math.isnan(one.amount) or one.label == RETRACTED else one.amount
        same = (known.label, known.amount) == (one.label, amount)
        verdict = "new" if known.seen is None else "duplicates" if same else "revised"
        if known.seen is None or one.observed_ms >= known.seen:
            known.label, known.seen, known.amount = one.label, one.observed_ms, amount
        return verdict


def hash_of(early: tuple[ReportedOutcome, int]) -> list[int]:
    return [model_hash(early[0].model) if early[0].model else 0]


IDS = [f"id-{i}" for i in range(12)]
adds = st.tuples(
    st.just("add"), st.integers(0, 2), st.lists(st.sampled_from(IDS), min_size=1, max_size=8)
)
outcomes = st.builds(
    outcome,
    st.sampled_from(IDS),
    st.sampled_from([0, 1, RETRACTED]),
    st.integers(0, 5),
    model=st.sampled_from(["", "fraud", "card"]),
    amount=st.sampled_from([math.nan, 1.5, 20.0]),
)
reports = st.tuples(st.just("report"), st.just(0), st.lists(outcomes, max_size=10))
reopens: st.SearchStrategy[Any] = st.tuples(st.just("reopen"), st.just(0), st.just([]))


@settings(
    derandomize=True, deadline=None, max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    steps=st.lists(st.one_of(adds, reports, reports, reopens), max_size=14),
    # 48: more than there are ids and models, and parts of three.
    max_waiting=st.sampled_from([1_000_000, 48]),
    segment_s=st.sampled_from([86_400.0, 0.003]),
)
def test_the_store_does_what_a_dict_would(
    tmp_path: Path, steps: list[Any], max_waiting: int, segment_s: float
) -> None:
    path = Path(tempfile.mkdtemp(dir=tmp_path), "decisions.db")
    sizes: Any = {"max_waiting": max_waiting, "segment_s": segment_s}
    store, plain = Records(path, **sizes), Plain()
    # A model is known from its first decision on: outcomes that name none look for those.
    for slot in (0, 2):
        store.add(decisions([f"first-{slot}"], slot=slot), decider_of)
        plain.add([f"first-{slot}"], DECIDERS[slot].key.model)
    for at, (what, slot, given_) in enumerate(steps):
        if what == "add":
            if segment_s < 1.0:  # a retry is kept again in another segment
                model = DECIDERS[slot].key.model
                given_ = [one for one in given_ if (one, model) not in plain.decided]
                if not given_:
                    continue
            added = store.add(
                decisions(given_, slot=slot, time_ms=START_MS + at, seed=at), decider_of
            )
            assert added.n_kept == plain.add(given_, DECIDERS[slot].key.model)
            assert added.n_kept + added.n_repeated == len(given_)
        elif what == "report":
            counts = store.report(given_, START_MS + at)
            wanted = plain.report(given_, START_MS + at)
            found = counts._asdict()
            for name in ("accepted", "unmatched", "duplicates", "revised"):
                assert found[name] == wanted[name], (name, counts, wanted)
            assert counts.expired <= counts.unmatched
        else:
            store.close()
            store = Records(path, **sizes)
    assert store.stats().n_waiting == sum(map(len, plain.waiting.values()))
    assert store.stats().n_decisions == len(plain.decided)
    store.close()
    check(path)
    assert labels_of(path) == Counter(
        (known.model, known.label, known.seen, known.amount) for known in plain.decided.values()
    )


def test_the_outcome_that_was_observed_last_holds_in_any_order(tmp_path: Path) -> None:
    told = [outcome("a", 1, 10), outcome("a", 0, 20), outcome("a", 1, 30), outcome("a", 0, 25)]
    for order in range(24):
        path = tmp_path / str(order) / "decisions.db"
        with closing(Records(path)) as store:
            store.add(decisions(["a"]), decider_of)
            for one in random.Random(order).sample(told, 4):
                store.report([one], START_MS)
        assert list(labels_of(path)) == [("fraud", 1, START_MS + 30, None)]


def test_labels_that_were_given_are_counted_by_version(tmp_path: Path) -> None:
    with closing(Records(tmp_path / "decisions.db")) as store:
        store.report([outcome("early", 1)], START_MS)
        store.add(decisions(["a", "early"]), decider_of)
        store.add(decisions(["b"], slot=1), decider_of)
        store.report([outcome("a", 1), outcome("b", 0), outcome("b", 1, 2)], START_MS)
        store.report([outcome("a", RETRACTED, 3)], START_MS)
        joined = store.joined()
    assert joined.labels == {
        ("fraud", "1", "positive"): 2,
        ("fraud", "2", "positive"): 1,  # of two in one batch, what holds
        ("fraud", "1", "retracted"): 1,
    }
    assert joined.n_late == 1


# ------------------------------------------------------------------ segments, bounds


def test_outcomes_find_decisions_of_every_segment(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with closing(Records(path, segment_s=10)) as store:
        for second in range(0, 100, 5):
            store.add(decisions([f"at-{second}"], time_ms=START_MS + second * 1000), decider_of)
        assert store.stats().n_segments == 10
        counts = store.report([outcome(f"at-{s}") for s in range(0, 100, 5)], START_MS)
        assert counts.unmatched == 0
    check(path)


def test_what_is_too_old_goes_and_its_outcomes_are_expired(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with closing(Records(path, segment_s=10, keep_s=60)) as store:
        for second in range(0, 200, 5):
            store.add(decisions([f"at-{second}"], time_ms=START_MS + second * 1000), decider_of)
        assert 6 <= store.stats().n_segments <= 8
        assert store.stats().oldest_ms >= START_MS + 120_000
        late = store.report([outcome("at-0", seen=50_000), outcome("at-195", seen=199_000)], 0)
        assert (late.accepted, late.unmatched, late.expired) == (2, 1, 1)
    check(path)


def test_the_file_is_bounded_whatever_comes(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    limit = 3 << 20
    with closing(Records(path, keep_bytes=limit)) as store:
        for i in range(60):
            ids = [f"{i}-{j}" for j in range(2000)]
            store.add(decisions(ids, time_ms=START_MS + i), decider_of)
            store.report([outcome(one, amount=5.0) for one in ids[:1000]], START_MS)
            store.report([outcome(f"never-{one}") for one in ids], START_MS)
        stats = store.stats()
        assert stats.n_bytes <= limit * 1.1
        assert stats.n_decisions > 10_000
        assert 0 < stats.n_waiting <= limit // 8 // 96
        assert store.joined().n_given_up > 50_000
    assert path.stat().st_size <= limit * 1.3
    check(path)


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    hours = [0, 1, -5, -4, 2, -100]
    with closing(Records(path)) as store:
        for hour in hours:
            store.add(decisions([f"{hour}"], time_ms=START_MS + hour * 3_600_000), decider_of)
        counts = store.report([outcome(f"{hour}") for hour in hours], START_MS)
        assert counts.unmatched == 0
        assert store.stats().n_decisions == len(hours)
        # Loops' clocks differ by a little: that is no clock set back.
        before = store.stats().n_segments
        store.add(decisions(["x"], time_ms=START_MS - 100 * 3_600_000 - 10_000), decider_of)
        assert store.stats().n_segments == before
    check(path)


def test_a_batch_larger_than_a_segment_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    ids = [f"{i}" for i in range(5000)]
    with closing(Records(path, keep_bytes=1 << 20)) as store:
        assert store.add(decisions(ids), decider_of).n_kept == 5000
        assert store.stats().n_segments >= 3
        assert store.report([outcome(one) for one in ids], START_MS).unmatched == 0
    check(path)


def test_scores_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    rows = decisions(["nan", "inf"])
    rows["raw"], rows["score"] = [math.nan, math.inf], [math.nan, math.inf]
    with closing(Records(path)) as store:
        assert store.add(rows, decider_of).n_kept == 2
        assert store.report([outcome("nan"), outcome("inf")], START_MS).unmatched == 0
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT sum(rows), sum(score) FROM tallies").fetchone() == (2, 0)


def test_decisions_of_nobody_are_counted_and_not_kept(tmp_path: Path) -> None:
    with closing(Records(tmp_path / "decisions.db")) as store:
        rows = np.concatenate([decisions(["a"]), decisions(["b"], slot=9)])
        assert store.add(rows, decider_of) == (1, 0, 1)
        assert store.add(rows[:0], decider_of) == (0, 0, 0)


def test_sources_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with closing(Records(path)) as store:
        store.report(
            [ReportedOutcome(f"{i}", "", 1, START_MS, 0.0, f"who-{i}") for i in range(1500)], 0
        )
    with closing(sqlite3.connect(path)) as database:
        names = [name for [name] in database.execute("SELECT name FROM sources")]
    assert len(names) == 1001
    assert "other" in names


def test_a_million_outcomes_at_once_take_no_more_memory_than_a_batch(tmp_path: Path) -> None:
    with closing(Records(tmp_path / "decisions.db", keep_bytes=16 << 20)) as store:
        store.add(decisions([f"{i}" for i in range(5000)]), decider_of)
        batch = [outcome(f"{i}") for i in range(10_000)]
        store.report(batch, START_MS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(100):
            store.report(batch, START_MS)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


# ------------------------------------------------------------------ disks and crashes


def test_a_full_disk_takes_nothing_and_works_again(tmp_path: Path) -> None:
    script = """
    import json, resource, signal, sys
    from pathlib import Path
    from server.errors import FeedbackError
    from server.feedback.records import Records
    from tests.unit.test_feedback_records import decider_of, decisions, outcome

    path = Path(sys.argv[1])
    store = Records(path)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept, told, failures = [], [], 0
    store.add(decisions(["0"]), decider_of)
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    for round in range(6):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + round * 200_000, usual[1]))
        for i in range(30):
            ids = [f"{round}-{i}-{j}" for j in range(200)]
            before = store.stats()
            try:
                store.add(decisions(ids), decider_of)
                kept += ids
                store.report([outcome(one) for one in ids[:50]], 0)
                told += ids[:50]
            except FeedbackError as error:
                assert "cannot be written" in str(error), error
                failures += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        store.add(decisions([f"again-{round}"]), decider_of)
        kept.append(f"again-{round}")
        assert store.stats().n_decisions == len(kept) + 1, (store.stats(), len(kept))
    again = store.report([outcome(one) for one in told], 0)
    assert again.duplicates == len(told), again
    rest = store.report([outcome(one) for one in kept], 0)
    assert rest.unmatched == 0, rest
    store.close()
    print(json.dumps([len(kept), len(told), failures]))
    """
    path = tmp_path / "decisions.db"
    n_kept, n_told, n_failures = json.loads(run_python(script, path))
    assert n_failures > 20
    assert n_kept > n_told > 200
    check(path)


def test_a_kill_loses_nothing_that_was_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    writer = """
    import os, sys
    from pathlib import Path
    from server.feedback.records import Records
    from tests.unit.test_feedback_records import START_MS, decider_of, decisions, outcome

    first = int(sys.argv[2])
    store = Records(Path(sys.argv[1]), segment_s=0.05)
    i = first
    while True:
        ids = [f"{i}-{j}" for j in range(100)]
        store.report([outcome(one, 1, 5) for one in ids[:20]], 0)  # they wait
        os.write(1, f"early {i}\\n".encode())
        store.add(decisions(ids, time_ms=START_MS + i), decider_of)
        store.report([outcome(one, 0, 9, amount=2.0) for one in ids[10:50]], 0)
        os.write(1, f"told {i}\\n".encode())
        i += 1
    """
    path = tmp_path / "decisions.db"
    early: set[int] = set()
    told: set[int] = set()
    at = 0
    for _ in range(6):
        process = start_python(writer, path, at)
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # it works
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        lines += process.stdout.read().splitlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        for line in lines:
            what, digits = line.split()
            {b"early": early, b"told": told}[what].add(int(digits))
        at = max(early) + 2  # what was on its way then is left alone
        check(path)
    assert len(told) > 10
    with closing(Records(path)) as store:
        for number in sorted(told):
            ids = [f"{number}-{j}" for j in range(100)]
            again = store.report([outcome(one, 0, 9, amount=2.0) for one in ids[10:50]], 0)
            assert again == ReportCounts(40, 0, 40, 0, 0, {})
            again = store.report([outcome(one, 1, 5) for one in ids[:10]], 0)
            assert again == ReportCounts(10, 0, 10, 0, 0, {})
        n_decisions = store.stats().n_decisions
        for number in sorted(early - told):
            # Told or not: it is there once, and says what was said.
            counts = store.report([outcome(f"{number}-{j}", 1, 5) for j in range(10)], 0)
            assert counts.duplicates + counts.unmatched == 10
        assert store.stats().n_decisions == n_decisions
    check(path)


@pytest.mark.parametrize("harm", ["header", "middle", "not a database", "another's"])
def test_a_damaged_file_is_set_aside(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "decisions.db"
    with closing(Records(path)) as store:
        store.add(decisions([f"{i}" for i in range(3000)]), decider_of)
    data = bytearray(path.read_bytes())
    if harm == "another's":
        path.unlink()
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE t (x)")
            database.execute("PRAGMA user_version = 7")
    else:
        data[:] = {
            "header": bytes(100) + data[100:],
            "middle": data[:40960] + bytes(len(data) - 40960),
            "not a database": b"<html>" * 1000,
        }[harm]
        path.write_bytes(data)
    with caplog.at_level(logging.ERROR), closing(Records(path)) as store:
        if harm == "middle":  # seen when it is used, and mended by then
            with pytest.raises(FeedbackError, match="is damaged"):
                store.add(decisions(["a"]), decider_of)
        store.add(decisions(["a"]), decider_of)
        assert store.report([outcome("a")], START_MS).unmatched == 0
    assert "cannot be read" in caplog.text
    [aside] = tmp_path.glob("decisions.db.damaged-*")
    assert aside.stat().st_size > 0
    check(path)


def test_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with (
        closing(Records(path)),
        pytest.raises(FeedbackError, match=rf"in use by process {os.getpid()}: one server has one"),
    ):
        Records(path)
    Records(path).close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FeedbackError, match=r"cannot be kept|cannot be opened"):
        Records(tmp_path / "below" / "decisions.db")


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "below").write_text("")
    with pytest.raises(FeedbackError, match=r"feedback\.directory"):
        Records(tmp_path / "below" / "decisions.db")


def test_threads_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with closing(Records(path)) as store:

        def work(who: int) -> None:
            for i in range(10):
                ids = [f"{who}-{i}-{j}" for j in range(50)]
                store.add(decisions(ids), decider_of)
                store.report([outcome(one) for one in ids], START_MS)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.stats().n_decisions == 2000
        assert sum(store.joined().labels.values()) == 2000
    check(path)


def start_python(script: str, *args: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)], stdout=subprocess.PIPE
    )


def run_python(script: str, *args: object) -> str:
    with start_python(script, *args) as process:
        text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return text.decode()
