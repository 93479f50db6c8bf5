"""`scoregate reference build`: rows as the server resolves them, a new version beside the old."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import RequestError
from fastpath.features import resolve_message
from fastpath.schema import Gather
from server.bundle import read_bundle
from server.bundle.manifest import MANIFEST, REFERENCE
from server.bundle.schema import FeatureEntry, SchemaFile, compile_schema
from server.cli import scoregate
from server.drift import load_reference
from server.drift.columns import Columns
from server.drift.settings import monitored_features
from server.errors import BundleError, InputError
from server.export import ExportOptions, FeatureOptions, export_model
from server.export.rebuild import rebuild_reference
from server.export.serving_rows import resolve_rows
from server.pb.scoregate.v1 import scoring_pb2
from server.repository import Repository
from tests.support.serving import MODEL, copy_repository, example_repository, example_rows

INF, NAN = math.inf, math.nan
SCHEMA = SchemaFile(
    features=[
        FeatureEntry(name="amount", type="numeric", default=7.0, minimum=0.0, maximum=100.1),
        FeatureEntry(name="age", type="numeric", minimum=0.0, maximum=9.0, on_range="clip"),
        FeatureEntry(name="night", type="boolean", default=1.0),
        FeatureEntry(
            name="country", type="categorical", default=2.0, vocabulary=["BE", "FR", "DE"]
        ),
        FeatureEntry(name="limit", type="numeric", maximum=5.0, on_range="reject"),
        FeatureEntry(name="known", type="boolean", required=True),
    ]
)
VALUE = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.5, -1.0, 5.0, 9.0, 100.1, 1e30, NAN, INF, -INF]),
    st.floats(width=32),
)


@given(st.lists(st.tuples(*[VALUE] * 6), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rows_are_resolved_as_the_server_does(rows: list[tuple[float, ...]]) -> None:
    schema = compile_schema(SCHEMA)
    names = [feature.name for feature in SCHEMA.features]
    found = resolve_rows(pd.DataFrame(rows, columns=names), SCHEMA, "rows.csv")
    features = monitored_features(SCHEMA.features)
    columns = Columns(features, [np.zeros(1, np.float32)] * 7)
    gather, at = Gather(schema, schema.columns), 0
    for row, kept in zip(rows, found.kept, strict=True):
        request = scoring_pb2.ScoreRequest()
        request.dense.layout = schema.fingerprint
        request.dense.values.extend(row)
        try:
            server = resolve_message(schema, gather, request.SerializeToString())
        except RequestError:
            assert not kept
            continue
        assert kept
        assert found.scored[at].tobytes() == server["row"].tobytes()
        sources = np.frombuffer(server["sources"], np.uint8)[None, :]
        raw = np.zeros(1, np.float32)
        seen, _ = columns.tidy(server["row"][None, :], raw, sources)
        np.testing.assert_array_equal(found.observed[at], seen[:-1, 0])
        at += 1
    assert at == len(found.scored)


def test_texts_and_flags_of_files_are_understood() -> None:
    frame = pd.DataFrame(
        {
            "amount": pd.array([1, None, 3], dtype="Int64"),
            "age": [1.0, 2.0, 3.0],
            "night": np.array([True, None, False], dtype=object),
            "country": ["FR", None, "US"],
            "limit": [1, 2, 3],
            "known": [True, False, True],
            "more": ["not", "looked", "at"],
        }
    )
    found = resolve_rows(frame, SCHEMA, "rows.parquet")
    assert found.scored.tolist() == [[1, 1, 1, 1, 1, 1], [7, 2, 1, 2, 2, 0], [3, 3, 0, 2, 3, 1]]
    assert found.observed[:, 3].tolist()[::2] == [1, 3]  # known, unseen
    assert np.isnan(found.observed[1, [0, 2, 3]]).all()
    assert not found.refusals


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("amount", ["12", "x"], "column amount holds string values, as '12' in row 0; .* numbers"),
        ("night", ["yes", "no"], "the feature is boolean: true and false, or 0 and 1"),
        ("country", [[1], [2]], "texts of its vocabulary, or codes"),
    ],
)
def test_wrong_types_name_the_column(column: str, values: list[Any], words: str) -> None:
    frame = pd.DataFrame({feature.name: [1.0, 1.0] for feature in SCHEMA.features})
    frame[column] = pd.Series(values)
    with pytest.raises(InputError, match=words):
        resolve_rows(frame, SCHEMA, "rows.csv")


def test_missing_columns_are_named_together() -> None:
    with pytest.raises(
        InputError, match=r"no column amount, known, of 6 features.*; there are age"
    ):
        resolve_rows(
            pd.DataFrame({n: [1.0] for n in ("age", "night", "country", "limit")}), SCHEMA, "x.csv"
        )


# ------------------------------------------------------------- the new version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "repository")


def write(rows: pd.DataFrame, path: Path) -> Path:
    rows.to_parquet(path) if path.suffix == ".parquet" else rows.to_csv(path, index=False)
    return path


def content(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_exports_own_rows_give_the_exports_reference(
    repository: Path, tmp_path: Path, version: str
) -> None:
    former = repository / MODEL / version
    before = content(former)
    file = write(example_repository().rows, tmp_path / "rows.parquet")
    made = rebuild_reference(former, file)
    assert made.path == repository / MODEL / f"{version}-ref1"
    assert content(former) == before
    after = content(made.path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {MANIFEST, REFERENCE}
    old, new = read_bundle(former), read_bundle(made.path)
    ours, theirs = new.arrays(REFERENCE), old.arrays(REFERENCE)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    assert (new.manifest.name, new.manifest.version) == (MODEL, f"{version}-ref1")
    assert new.manifest.reference == "rows.parquet"
    assert new.manifest.thresholds == old.manifest.thresholds
    assert Repository(repository).read(MODEL, f"{version}-ref1").sha256 == made.sha256
    assert load_reference(new).name == "rows.parquet"
    assert load_reference(old).name == "the export's validation rows"


def test_other_rows_give_another_reference(repository: Path, tmp_path: Path) -> None:
    rows = example_rows(1200, 7)[0].astype(np.float64)
    rows["amount"] *= 2
    rows.loc[:99, "n_day"] = NAN
    rows.loc[100:149, "amount"] = NAN  # required
    rows.loc[150:159, "amount"] = 1e7  # out of range: missing, so required again
    file = write(rows, tmp_path / "rows.csv")
    made = rebuild_reference(repository / MODEL, file, out=repository / MODEL / "3")
    assert made.former == repository / MODEL / "2"  # the newest
    assert made.rows.refusals == {"amount missing": 60}
    reference = load_reference(read_bundle(made.path))
    assert reference.n_rows == 1140
    kept = rows["amount"].drop(index=range(100, 160)).to_numpy(np.float32)
    np.testing.assert_array_equal(reference.values[0], np.sort(kept))
    assert reference.columns.missing(reference.counts).tolist() == [0, 0, 100, 0, 0]
    again = rebuild_reference(made.path, file)
    assert again.version == "3-ref1"
    assert rebuild_reference(again.path, file).version == "3-ref2"


def test_calendar_features_get_their_hours(tmp_path: Path) -> None:
    train, target = example_rows(2000, 1)
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2000).fit(train, target)
    options = ExportOptions(features={"night": FeatureOptions(monitor="calendar")})
    valid, valid_target = example_rows(800, 2)
    former = tmp_path / "fraud" / "1"
    export_model(model, train, target, valid, valid_target, out=former, options=options)
    assert not load_reference(read_bundle(former)).hours
    times = pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(4000) * 150, unit="s")
    rows = example_rows(4000, 3)[0]
    rows["night"] = times.hour < 6
    rows["when"] = times
    shuffled = rows.sample(frac=1, random_state=0)
    made = rebuild_reference(former, write(shuffled, tmp_path / "t.csv"), time_column="when")
    hours = made.reference.hours[1]
    assert hours[:6, 0].sum() == 0  # Monday's night is all night
    assert hours[6:24, 1].sum() == 0
    assert hours.sum() == 4000
    arrays = read_bundle(made.path).arrays(REFERENCE)
    assert arrays["time_ms"].tolist() == [times[0].value // 10**6, times[-1].value // 10**6]
    rows["when"] = np.arange(4000)  # an order, and no hours
    made = rebuild_reference(former, write(rows, tmp_path / "n.csv"), time_column="when")
    assert not made.reference.hours


@pytest.mark.parametrize(
    ("change", "time_column", "words"),
    [
        (lambda rows: rows[:599], None, "599 rows; a reference needs at least 600"),
        (
            lambda rows: rows.assign(amount=np.where(rows.index < 300, NAN, rows.amount)),
            None,
            "800 rows of which the server would answer 500 .refused: 300 with amount missing",
        ),
        (lambda rows: rows.drop(columns="risk"), None, "no column risk, of 4 features"),
        (lambda rows: rows.assign(risk="high"), None, "column risk holds string values"),
        (lambda rows: rows, "when", "--time-column when: no such column"),
        (lambda rows: rows.assign(when="soon"), "when", "when holds no times, as 'soon'"),
        (
            lambda rows: rows.assign(when=[None, *["2026-01-01"] * 799]),
            "when",
            "row 0 has no time",
        ),
    ],
)
def test_what_cannot_be_used_writes_nothing(
    repository: Path, tmp_path: Path, change: Any, time_column: str | None, words: str
) -> None:
    file = write(change(example_repository().rows), tmp_path / "rows.csv")
    with pytest.raises(InputError, match=words):
        rebuild_reference(repository / MODEL / "1", file, time_column=time_column)
    assert sorted(p.name for p in (repository / MODEL).iterdir()) == ["1", "2"]


def test_nothing_is_overwritten_and_damage_is_refused(repository: Path, tmp_path: Path) -> None:
    file = write(example_repository().rows, tmp_path / "rows.csv")
    with pytest.raises(BundleError, match="exists already"):
        rebuild_reference(repository / MODEL / "1", file, out=repository / MODEL / "2")
    with pytest.raises(InputError, match="neither a bundle nor a model's directory"):
        rebuild_reference(repository, file)
    (repository / MODEL / "1" / REFERENCE).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=REFERENCE):
        rebuild_reference(repository / MODEL / "1", file)


def test_the_command_says_what_it_did(repository: Path, tmp_path: Path) -> None:
    rows = example_repository().rows.astype(np.float64)
    rows.loc[:9, "amount"] = NAN
    file = write(rows, tmp_path / "rows.csv")
    command = ["reference", "build", str(repository / MODEL / "1"), str(file)]
    done = CliRunner().invoke(scoregate, command, catch_exceptions=False)
    assert done.exit_code == 0
    new = repository / MODEL / "1-ref1"
    assert f"{new}: written, SHA-256 {read_bundle(new).sha256.hex()}" in done.stdout
    assert "reference: 790 of the 800 rows" in done.stdout
    assert "left out, as the server would refuse them: 10 rows, amount missing" in done.stdout
    assert done.stdout.endswith("next: scoregate deploy fraud 1-ref1 --traffic 10\n")
