"""`feast materialize` into our stores, in a real Feast repository, compared with Feast's own store.

Feast runs in an interpreter of its own, because it wants an older pandas than ours:
SCOREGATE_FEAST_PYTHON, or `var/feast/bin/python` (`make feast-env`).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.feature_peers import FEAST_PYTHON, feast_python
from fastpath.record import decode_record
from fastpath.spec import GroupSpec, group_fingerprint
from server.features import open_writer
from server.features.lookup import look_up
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
PYTHON = feast_python()
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason=f"no interpreter with Feast: set {FEAST_PYTHON} or run make feast-env"
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
N_CUSTOMERS = 57

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float32, Float64, Int32, Int64, String

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
terminal = Entity(name="terminal", join_keys=["terminal_id"], value_type=ValueType.STRING)
customer_stats = FeatureView(
    name="customer_stats", entities=[customer], ttl=timedelta(days=30),
    schema=[
        Field(name="n_week", dtype=Int64), Field(name="mean_week", dtype=Float64),
        Field(name="is_new", dtype=Bool), Field(name="risk", dtype=Float32),
        Field(name="country", dtype=Int32, tags={"scoregate_type": "categorical"}),
    ],
    source=FileSource(path="customers.parquet", timestamp_field="at"),
)
terminal_risk = FeatureView(
    name="terminal_risk", entities=[terminal], ttl=timedelta(days=30),
    schema=[Field(name="fraud_share", dtype=Float64)],
    source=FileSource(path="terminals.parquet", timestamp_field="at"),
)
"""
COLUMNS = (
    ("n_week", "numeric"),
    ("mean_week", "numeric"),
    ("is_new", "boolean"),
    ("risk", "numeric"),
    ("country", "categorical"),
)

# Carries out one JSON list per line: ["cli", REPOSITORY, ARGUMENT...] runs Feast's own command,
# ["ask", REPOSITORY, FEATURES, ROWS] its online store. Each is answered by ["ok"|"error", what].
DRIVER = """
import contextlib, json, sys
from feast import FeatureStore
from feast.cli.cli import cli

def carry_out(kind, repository, *rest):
    if kind == "ask":
        store = FeatureStore(repo_path=repository)
        return store.get_online_features(features=rest[0], entity_rows=rest[1]).to_dict()
    sys.modules.pop("definitions", None)
    cli.main(["-c", repository, *rest], standalone_mode=False)

for line in sys.stdin:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = ["ok", carry_out(*json.loads(line))]
    except Exception as error:
        answer = ["error", f"{type(error).__name__}: {error}"]
    print(json.dumps(answer), flush=True)
"""


class Feast:
    """One process of Feast's interpreter: starting it takes seconds, a command does not."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(PYTHON), "-W", "ignore", "-c", DRIVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "FEAST_USAGE": "False"},
            )

    def _call(self, *task: Any) -> tuple[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        end, what = json.loads(line)
        return end, what

    def command(self, repository: Path, *arguments: str) -> None:
        end, what = self._call("cli", str(repository), *arguments)
        assert end == "ok", what

    def refused(self, repository: Path, *arguments: str) -> str:
        end, what = self._call("cli", str(repository), *arguments)
        assert end == "error"
        return str(what)

    def ask(self, repository: Path, features: list[str], rows: list[Any]) -> dict[str, list[Any]]:
        end, what = self._call("ask", str(repository), features, rows)
        assert end == "ok", what
        answer: dict[str, list[Any]] = what
        return answer

    def materialize(self, repository: Path) -> None:
        self.command(repository, "apply")
        start, end = (NOW - timedelta(days=20)).isoformat(), NOW.isoformat()
        self.command(repository, "materialize", start, end)


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feast]:
    found = Feast(tmp_path_factory.mktemp("feast") / "log")
    with found.process:
        yield found
        assert found.process.stdin is not None
        found.process.stdin.close()


def customers() -> pd.DataFrame:
    """Three rows per customer; the last by time is the one that counts."""
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(1000, 1000 + N_CUSTOMERS), 3)
    n = len(ids)
    rows = pd.DataFrame(
        {
            "customer_id": ids.astype(np.int64),
            "n_week": rng.integers(0, 1000, n),
            "mean_week": rng.gamma(2.0, 30.0, n),
            "is_new": rng.random(n) < 0.3,
            "risk": rng.random(n).astype(np.float32),
            "country": rng.integers(0, 20, n).astype(np.int32),
            "at": [
                NOW - timedelta(hours=int(h), milliseconds=int(ms))
                for h, ms in zip(rng.integers(1, 200, n), rng.integers(0, 1000, n), strict=True)
            ],
        }
    )
    rows.loc[rng.random(n) < 0.2, "mean_week"] = np.nan
    return rows


def make_repository(folder: Path, online_store: str) -> Path:
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        "project: fraud\nprovider: local\nregistry: registry.db\n"
        f"entity_key_serialization_version: 3\nonline_store:\n{online_store}\n"
    )
    (folder / "definitions.py").write_text(DEFINITIONS)
    customers().to_parquet(folder / "customers.parquet")
    pd.DataFrame(
        {"terminal_id": ["t-ü", "t:2"], "fraud_share": [0.25, 1e-3], "at": [NOW - timedelta(1)] * 2}
    ).to_parquet(folder / "terminals.parquet")
    return folder


@pytest.fixture(scope="module")
def sqlite(feast: Feast, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What Feast's own store answers about every customer and two who are unknown."""
    repository = make_repository(
        tmp_path_factory.mktemp("feast") / "sqlite", "  type: sqlite\n  path: online.db"
    )
    feast.materialize(repository)
    rows = [{"customer_id": 1000 + i} for i in range(N_CUSTOMERS + 2)]
    return feast.ask(repository, [f"customer_stats:{name}" for name, _ in COLUMNS], rows)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def ours(
    feast: Feast, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """Make a repository over one of our stores; return it and the store's URL."""
    folder = tmp_path_factory.mktemp("feast") / "ours"
    store = "  type: server.features.feast.ScoregateOnlineStore\n  url: {}\n"
    store += "  groups: {{customer_stats: customer}}"
    if request.param == "lmdb":
        repository = make_repository(folder, store.format("lmdb:features"))
        feast.materialize(repository)
        yield repository, f"lmdb:{folder}/features"
        return
    with RedisServer() as server:
        repository = make_repository(folder, store.format(server.url))
        feast.materialize(repository)
        yield repository, server.url


def test_records_hold_what_feasts_own_store_answers(
    ours: tuple[Path, str], sqlite: dict[str, list[Any]]
) -> None:
    ids = [str(1000 + i) for i in range(N_CUSTOMERS + 2)]
    records = look_up(ours[1], "customer", ids)
    assert records[-2:] == [None, None]
    latest = customers().sort_values("at").groupby("customer_id").last()["at"]
    for i, data in enumerate(records[:N_CUSTOMERS]):
        assert data is not None
        fingerprint, time_ms, values = decode_record(data)
        assert fingerprint == group_fingerprint("customer", COLUMNS)
        assert time_ms == int(latest.iloc[i].timestamp() * 1000 + 1e-3)
        expected = [sqlite[name][i] for name, _ in COLUMNS]
        np.testing.assert_array_equal(
            values, np.array([math.nan if x is None else x for x in expected], np.float32)
        )
    assert any(math.isnan(x) for x in map(float, np.array(sqlite["mean_week"], float)))
    assert sqlite["n_week"][-2:] == [None, None]


def test_a_view_without_an_entry_is_a_group_of_its_own_name(ours: tuple[Path, str]) -> None:
    found = look_up(ours[1], "terminal_risk", ["t-ü", "t:2", "t"])
    assert [x is None or decode_record(x)[2].tolist() for x in found] == [
        [0.25],
        [float(np.float32(1e-3))],
        True,
    ]


def test_feast_reads_our_records_too(
    feast: Feast, ours: tuple[Path, str], sqlite: dict[str, list[Any]]
) -> None:
    rows = [{"customer_id": 1000 + i} for i in range(N_CUSTOMERS + 2)]
    found = feast.ask(ours[0], [f"customer_stats:{name}" for name, _ in COLUMNS], rows)
    for name in ("n_week", "is_new", "risk", "country"):
        assert found[name] == sqlite[name], name
    # Feast keeps float64 as it is, we as float32.
    np.testing.assert_array_equal(
        np.array(found["mean_week"], np.float32), np.array(sqlite["mean_week"], np.float32)
    )


def test_an_older_row_does_not_replace_a_newer_record(feast: Feast, ours: tuple[Path, str]) -> None:
    group = GroupSpec("customer", "customer_id", COLUMNS)
    later_ms = int((NOW + timedelta(days=3)).timestamp() * 1000)
    with open_writer(ours[1], group) as writer:
        writer.write(["1000"], later_ms, np.full((1, 5), 7, np.float32))
    start, end = (NOW - timedelta(days=20)).isoformat(), NOW.isoformat()
    feast.command(ours[0], "materialize", start, end, "--views", "customer_stats")
    (data,) = look_up(ours[1], "customer", ["1000"])
    assert data is not None
    assert decode_record(data)[1] == later_ms


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dtype=Float32)", "dtype=String)", "'risk' is String; records hold numbers"),
        ("entities=[terminal]", "entities=[]", "'terminal_risk' has no join key"),
        ("entities=[terminal]", "entities=[terminal, customer]", "'terminal_risk' has 2 join keys"),
        ('name="terminal_risk"', 'name="terminal risk"', "a group's name is"),
        ('"categorical"', '"colour"', "type 'colour' is unknown"),
    ],
)
def test_apply_refuses_what_cannot_be_stored(
    feast: Feast, tmp_path: Path, old: str, new: str, message: str
) -> None:
    store = "  type: server.features.feast.ScoregateOnlineStore\n  url: lmdb:features"
    repository = make_repository(tmp_path / "repository", store)
    definitions = repository / "definitions.py"
    assert old in DEFINITIONS
    definitions.write_text(DEFINITIONS.replace(old, new))
    rows = pd.read_parquet(repository / "terminals.parquet").assign(customer_id=1)
    rows.to_parquet(repository / "terminals.parquet")
    assert message in feast.refused(repository, "apply")
