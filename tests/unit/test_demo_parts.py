"""The demo's parts without processes: split, thresholds, requests, latencies, kept artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from server.cli.simulate import simulate as simulate_command
from server.demo.artifacts import NEXT_VERSION, VERSION, Artifacts, State, fingerprint
from server.demo.columns import FEATURES, RAW_COLUMNS, TERMINAL_COLUMNS
from server.demo.dataset import Dataset, make_dataset, replay_rows
from server.demo.histogram import LatencyHistogram
from server.demo.simulator import simulate
from server.demo.sizes import Size
from server.demo.traffic import INCOMPLETE_SHARE, NAMED_SHARE, Rows, Traffic
from server.demo.training import choose_thresholds
from server.errors import InputError
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.rollout.opening import JOURNAL

SMALL = Size(n_customers=150, n_terminals=400, n_days=65)
COLUMNS = [(name, "boolean" if "DURING" in name else "numeric") for name in FEATURES]
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(None, SMALL, seed=3)


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> Rows:
    rng = np.random.default_rng(0)
    raw_score = rng.random((2, len(dataset.test)), dtype=np.float32)
    return replay_rows(dataset.test, {"1.0": raw_score[0], "2.0": raw_score[1]})


# ------------------------------------------------------------------------------- dataset


def test_split_waits_for_labels(dataset: Dataset) -> None:
    first = pd.Timestamp("2018-04-01")
    for part, begin in ((dataset.train, 37), (dataset.valid, 44), (dataset.test, 58)):
        day = (part["TX_DATETIME"] - first).dt.days
        assert (day.min(), day.max()) == (begin, begin + 6)


def test_a_files_own_features_are_used(tmp_path: Path) -> None:
    made = make_dataset(None, SMALL, seed=3)
    frame = pd.concat([made.train, made.valid, made.test])
    frame["CUSTOMER_ID_NB_TX_1DAY_WINDOW"] = np.float32(77)
    frame.to_parquet(tmp_path / "given.parquet")
    read = make_dataset(tmp_path / "given.parquet", SMALL, seed=0)
    assert (read.test["CUSTOMER_ID_NB_TX_1DAY_WINDOW"] == 77).all()
    assert "as they stand" in read.origin


def test_raw_columns_give_the_same_as_the_simulator(dataset: Dataset, tmp_path: Path) -> None:
    frame = simulate(SMALL, seed=3)
    frame.to_csv(tmp_path / "raw.csv", index=False)
    read = make_dataset(tmp_path / "raw.csv", SMALL, seed=0)
    names = list(FEATURES)
    pd.testing.assert_frame_equal(read.test[names], dataset.test[names], rtol=1e-6)
    assert "computed" in read.origin


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        (["TERMINAL_ID"], "missing: TERMINAL_ID. Give"),
        (["TX_DATETIME", "TX_AMOUNT"], "missing: TX_AMOUNT, TX_DATETIME. Give"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, lacking: list[str], says: str) -> None:
    simulate(Size(20, 400, 10), seed=1).drop(columns=lacking).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=says):
        make_dataset(tmp_path / "x.parquet", SMALL, seed=0)


def test_missing_features_are_named(dataset: Dataset, tmp_path: Path) -> None:
    given = dataset.test.drop(columns=["TERMINAL_ID", "TERMINAL_ID_RISK_7DAY_WINDOW"])
    given.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"it lacks TERMINAL_ID_RISK_7DAY_WINDOW$"):
        make_dataset(tmp_path / "x.parquet", SMALL, seed=0)


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("TX_FRAUD", 2, "only 0 and 1"),
        ("TX_FRAUD", None, "TX_FRAUD has .* empty"),
        ("TX_FRAUD", 0, "the training part has .* 0 frauds"),
        ("TX_DATETIME", "noon", "TX_DATETIME"),
    ],
)
def test_unusable_values(tmp_path: Path, column: str, values: object, says: str) -> None:
    frame = simulate(Size(50, 400, 30), seed=1)
    frame[column] = pd.Series([values] * len(frame))
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=says):
        make_dataset(tmp_path / "x.parquet", SMALL, seed=0)


def test_too_few_days(tmp_path: Path) -> None:
    simulate(Size(50, 400, 3), seed=1).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="span 3 days; at least 4"):
        make_dataset(tmp_path / "x.parquet", SMALL, seed=0)


# ---------------------------------------------------------------------------- thresholds


def test_thresholds_are_where_they_say() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(20_000) ** 16
    fraud = rng.random(20_000) < score
    chosen = choose_thresholds(fraud, score)
    assert np.mean(score >= chosen["review"]) == pytest.approx(0.02, abs=0.001)
    assert fraud[score >= chosen["block"]].mean() >= 0.9
    # No lower score would do.
    below = np.sort(score[score < chosen["block"]])[-1]
    assert fraud[score >= below].mean() < 0.9


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=20, max_size=60).filter(
        lambda pairs: any(fraud for fraud, _ in pairs)
    )
)
def test_thresholds_are_usable_whatever_the_scores(pairs: list[tuple[bool, float]]) -> None:
    fraud, score = (np.array(values) for values in zip(*pairs, strict=True))
    chosen = choose_thresholds(fraud, score.astype(np.float64))
    assert 0 < chosen["review"] < chosen["block"] < 1


# -------------------------------------------------------------------------------- requests


def test_requests_carry_the_rows(rows: Rows) -> None:
    traffic = Traffic(rows, COLUMNS, layout=99)
    ids = set()
    for row in range(traffic.n_rows):
        request = pb.ScoreRequest.FromString(traffic.request(row, turn=2))
        ids.add(request.request_id)
        assert request.entities[0].type == "customer"
        assert request.entities[0].id == rows.customer[row]
        assert request.event_time_ms == rows.event_time_ms[row]
        assert request.WhichOneof("features") == ("named" if traffic.is_named[row] else "dense")
        given: dict[str, float] = {}
        if traffic.is_named[row]:
            for name, value in request.named.values.items():
                given[name] = value.flag if value.WhichOneof("kind") == "flag" else value.number
        else:
            assert request.dense.layout == 99
            pairs = zip(FEATURES, request.dense.values, strict=True)
            given = {name: value for name, value in pairs if not np.isnan(value)}
        withheld = set(TERMINAL_COLUMNS) if traffic.is_incomplete[row] else set()
        assert set(given) == set(FEATURES) - withheld
        for column, name in enumerate(FEATURES):
            assert name in withheld or given[name] == rows.features[row, column]
    assert len(ids) == traffic.n_rows


def test_the_mix_is_what_the_screen_says(rows: Rows) -> None:
    traffic = Traffic(rows, COLUMNS, layout=1)
    n = traffic.n_rows
    for flags, share in (
        (traffic.is_named, NAMED_SHARE),
        (traffic.is_incomplete, INCOMPLETE_SHARE),
    ):
        assert abs(flags.sum() - n * share) < 5 * (n * share) ** 0.5


def test_a_layout_may_order_columns_as_it_likes(rows: Rows) -> None:
    traffic = Traffic(rows, COLUMNS[::-1], layout=1)
    row = int(np.flatnonzero(~traffic.is_named & ~traffic.is_incomplete)[0])
    request = pb.ScoreRequest.FromString(traffic.request(row, 0))
    np.testing.assert_array_equal(request.dense.values, rows.features[row, ::-1])


def test_a_layout_with_an_unknown_column(rows: Rows) -> None:
    with pytest.raises(InputError, match="lack: shoe_size"):
        Traffic(rows, [*COLUMNS, ("shoe_size", "numeric")], layout=1)


def test_rows_survive_a_file(rows: Rows, tmp_path: Path) -> None:
    rows.save(tmp_path / "rows.npz")
    back = Rows.load(tmp_path / "rows.npz")
    for name, values in vars(rows).items():
        np.testing.assert_array_equal(getattr(back, name), values)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


def test_a_damaged_file_of_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="--fresh"):
        Rows.load(tmp_path / "rows.npz")


# -------------------------------------------------------------------------------- latencies


@given(st.lists(st.floats(1.0, 6e7), min_size=1, max_size=300), st.sampled_from([0.5, 0.99, 0.999]))
def test_quantiles_are_within_a_bucket(values: list[float], share: float) -> None:
    halves = [LatencyHistogram(), LatencyHistogram()]
    for i, value in enumerate(values):
        halves[i % 2].add(value)
    halves[0].merge(halves[1])
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert exact / 1.0001 <= halves[0].quantile_us(share) <= exact * 1.023
    assert halves[0].n == len(values)
    assert halves[0].max_us == max(values)


def test_latencies_outside_the_buckets() -> None:
    histogram = LatencyHistogram()
    assert histogram.quantile_us(0.5) == 0
    for value in (0.0, -5.0, 1e12):
        histogram.add(value)
    assert histogram.quantile_us(0.5) <= 1.03
    assert histogram.max_us == 1e12


# -------------------------------------------------------------------------------- artifacts


def test_fingerprints_tell_inputs_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1")
    prints = {
        fingerprint(None, SMALL, 0),
        fingerprint(None, SMALL, 1),
        fingerprint(None, Size(), 0),
        fingerprint(file, SMALL, 0),
    }
    file.write_text("2")
    assert len(prints | {fingerprint(file, SMALL, 0)}) == 5
    assert fingerprint(None, SMALL, 0) in prints
    with pytest.raises(InputError, match=r"b\.csv: cannot be read"):
        fingerprint(tmp_path / "b.csv", SMALL, 0)


def test_artifacts_are_found_only_when_whole(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "demo")
    state = State(
        fingerprint="f",
        origin="o",
        groups=["customer"],
        n_train=1,
        n_test=1,
        test_span_s=1.0,
        test_quality={"auc": 0.5},
    )
    assert artifacts.find("f") is None
    artifacts.keep(state)
    assert artifacts.find("f") is None  # no bundle, no rows, no states
    artifacts.bundle(VERSION).mkdir(parents=True)
    artifacts.rows.touch()
    artifacts.states.touch()
    assert artifacts.find("f") is None  # not the next version
    artifacts.bundle(NEXT_VERSION).mkdir()
    assert artifacts.find("f") == state
    artifacts.states.unlink()
    assert artifacts.find("f") is None
    artifacts.states.touch()
    journal = artifacts.repository / JOURNAL
    journal.parent.mkdir()
    journal.touch()
    assert artifacts.find("another") is None
    artifacts.clear()
    assert artifacts.find("f") is None
    assert not artifacts.bundle(VERSION).exists()
    # A model trained anew must not be served as a former plan says.
    assert not journal.exists()


def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    with (
        Artifacts(tmp_path).lock(),
        pytest.raises(InputError, match="another demo"),
        Artifacts(tmp_path).lock(),
    ):
        pass
    with Artifacts(tmp_path).lock():
        pass


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        Artifacts(tmp_path / "file" / "demo")


# ------------------------------------------------------------------------------ command line


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_simulate_writes_what_it_says(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"made.{suffix}"
    size = ["--days", "5", "--customers", "50", "--terminals", "400", "--seed", "7"]
    for kind, columns in (("--raw", RAW_COLUMNS), ("--features", (*RAW_COLUMNS, *FEATURES[1:]))):
        result = CliRunner().invoke(simulate_command, ["--out", str(out), *size, kind])
        assert result.exit_code == 0, result.output
        frame = pd.read_parquet(out) if suffix == "parquet" else pd.read_csv(out)
        assert tuple(frame.columns) == columns
        assert f"{len(frame):,} transactions of 5 days" in result.output
        expected = simulate(Size(50, 400, 5), seed=7)
        assert frame["TX_AMOUNT"].tolist() == expected["TX_AMOUNT"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("out", ["x.json", "missing/x.parquet"])
def test_simulate_says_where_it_cannot_write(tmp_path: Path, out: str) -> None:
    size = ["--days", "2", "--customers", "50", "--terminals", "400"]
    with pytest.raises(InputError, match="--out"):
        CliRunner().invoke(
            simulate_command, ["--out", str(tmp_path / out), *size], catch_exceptions=False
        )
