"""What the feature benchmarks read: orders of keys, records, bare reads of LMDB."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from scipy import stats

from bench import feature_peers
from bench.bare_gets import lmdb_gets, redis_gets
from bench.errors import BenchError
from bench.feature_store_data import (
    CHUNK,
    CUSTOMER,
    TERMINAL,
    Sizes,
    chunks,
    fill,
    keys,
    pairs,
    prepare_lmdb,
)
from bench.key_order import indices
from fastpath.record import decode_record

KEYS = [b"customer:%d" % i for i in range(500)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lmdb")
    with lmdb.open(str(folder), map_size=1 << 20) as found, found.begin(write=True) as transaction:
        for i, key in enumerate(KEYS):
            # Values shorter and longer than the buffer that they are copied into.
            transaction.put(key, bytes(i))
    return folder


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.5])
def test_zipf_ranks_follow_the_law(exponent: float) -> None:
    n_entities, n = 50, 40_000
    drawn = indices(n_entities, n, "zipf", seed=3, exponent=exponent)
    assert set(drawn.tolist()) <= set(range(n_entities))
    counts = np.sort(np.bincount(drawn, minlength=n_entities))[::-1]
    expected = np.arange(1, n_entities + 1) ** -exponent
    if exponent:
        assert stats.chisquare(counts, expected / expected.sum() * n).pvalue > 1e-4
    else:
        assert stats.chisquare(counts).pvalue > 1e-4


def test_orders_depend_on_the_seed_alone() -> None:
    for order in ("uniform", "zipf"):
        first = indices(1000, 5000, order, seed=1)
        assert first.dtype == np.int64
        np.testing.assert_array_equal(first, indices(1000, 5000, order, seed=1))
        assert (first != indices(1000, 5000, order, seed=2)).any()
    assert stats.chisquare(np.bincount(indices(50, 40_000, "uniform", seed=1))).pvalue > 1e-4
    assert indices(1, 3, "zipf", seed=0).tolist() == [0, 0, 0]
    # Popular entities are not the first ones.
    popular = np.bincount(indices(1000, 5000, "zipf", seed=1)).argsort()[::-1][:5]
    assert sorted(popular.tolist()) != [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("n_entities", "n", "order", "exponent"),
    [(0, 1, "uniform", 1.0), (1, -1, "zipf", 1.0), (5, 5, "zipf", -1.0), (5, 5, "other", 1.0)],
)
def test_orders_that_cannot_be(n_entities: int, n: int, order: str, exponent: float) -> None:
    with pytest.raises(BenchError):
        indices(n_entities, n, order, seed=0, exponent=exponent)  # type: ignore[arg-type]  # is wrong


@pytest.mark.parametrize("order", ["uniform", "zipf", "given"])
@pytest.mark.parametrize("n_per_txn", [1, 7, 10_000])
def test_bare_lmdb_reads_end_with_times(environment: Path, order: str, n_per_txn: int) -> None:
    cpu_ns, wall_ns = lmdb_gets(
        environment,
        KEYS,
        2000,
        order=order,  # type: ignore[arg-type]  # parametrised
        n_per_txn=n_per_txn,
    )
    assert cpu_ns > 0
    assert wall_ns > 0


def test_bare_lmdb_reads_have_to_find_everything(environment: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"b'customer:x': MDB_NOTFOUND"):
        lmdb_gets(environment, [*KEYS, b"customer:x"], 20_000)
    # In their order, over and over: the unknown one is reached at the fourth read, or never.
    given = [KEYS[0], KEYS[1], KEYS[0], b"customer:x"]
    lmdb_gets(environment, given, 3, order="given")
    lmdb_gets(environment, given[:3], 10, order="given")
    with pytest.raises(BenchError, match="read 3, key b'customer:x'"):
        lmdb_gets(environment, given, 4, order="given")
    with pytest.raises(BenchError, match="cannot be read as an LMDB environment"):
        lmdb_gets(tmp_path / "none", KEYS, 10)
    for n_gets, n_per_txn in ((0, 1), (1, 0)):
        with pytest.raises(BenchError, match="at least 1"):
            lmdb_gets(environment, KEYS, n_gets, n_per_txn=n_per_txn)
    # Every reader slot was given back.
    for _ in range(200):
        lmdb_gets(environment, KEYS, 1)


def test_bare_redis_reads_refuse_bad_arguments() -> None:
    for n_calls, depth in ((0, 1), (1, 0), (1, 1025)):
        with pytest.raises(BenchError, match="at least 1 call"):
            redis_gets("unix:/no/such.sock", KEYS, n_calls, depth=depth)
    with pytest.raises(BenchError, match="No such file"):
        redis_gets("unix:/no/such.sock", KEYS, 1)
    with pytest.raises(BenchError, match="no address"):
        redis_gets("nowhere", KEYS, 1)


@pytest.mark.parametrize("n", [1, CHUNK, CHUNK + 7])
def test_records_are_made_the_same_every_time(n: int) -> None:
    made = list(chunks(CUSTOMER, n))
    assert sum(len(part.entity_ids) for part in made) == n
    assert [x for part in made for x in part.entity_ids] == [str(i) for i in range(n)]
    for part, again in zip(made, chunks(CUSTOMER, n), strict=True):
        assert part.values.shape == (len(part.entity_ids), 6)
        assert np.isfinite(part.values).all()
        np.testing.assert_array_equal(part.values, again.values)
        np.testing.assert_array_equal(part.event_time_ms, again.event_time_ms)
    assert (next(chunks(TERMINAL, 1)).values != made[0].values[:1]).any()


def test_an_lmdb_store_holds_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.feature_store_data.FOLDER", tmp_path)
    sizes = Sizes(300, 40)
    folder = prepare_lmdb(sizes)
    stamp = (folder / "online/data.mdb").stat().st_mtime_ns
    assert prepare_lmdb(sizes) == folder
    assert (folder / "online/data.mdb").stat().st_mtime_ns == stamp, "made once"
    with lmdb.open(str(folder / "online"), readonly=True) as found, found.begin() as transaction:
        assert transaction.stat()["entries"] == 340
        for group, n in sizes.groups():
            (part,) = chunks(group, n)
            for i, key in enumerate(keys(group, n)):
                fingerprint, time_ms, values = decode_record(transaction.get(key) or b"")
                assert fingerprint == group.fingerprint
                assert time_ms == part.event_time_ms[i]
                np.testing.assert_array_equal(values, part.values[i])
    cpu_ns, _ = lmdb_gets(folder / "online", keys(CUSTOMER, 300), 1000)
    assert cpu_ns > 0


def test_filling_reports_a_rate_per_group(tmp_path: Path) -> None:
    said: list[str] = []
    rates = fill(f"lmdb:{tmp_path}", Sizes(100, 20), said.append)
    assert set(rates) == {"customer", "terminal"}
    assert all(rate > 0 for rate in rates.values())
    assert len(said) == 2


def test_requests_ask_for_entities_that_exist() -> None:
    found = pairs(Sizes(50, 5), 2000, "zipf", seed=1)
    assert {a for a, _ in found} <= {str(i) for i in range(50)}
    assert {b for _, b in found} == {str(i) for i in range(5)}
    assert found == pairs(Sizes(50, 5), 2000, "zipf", seed=1)


def test_without_feast_its_figures_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(feature_peers.FEAST_PYTHON, str(tmp_path / "none"))
    found = feature_peers.feast("sqlite", Sizes(10, 10), 1)
    assert "no interpreter with Feast" in found["skipped"]
