"""Rows that are read: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.errors import InputError
from server.export.frame import feature_names, fingerprint, make_rows, read_frame, split_by_time


def frame(**columns: Any) -> pd.DataFrame:
    base = {"a": [1.0, 2.0, 3.0], "b": [True, False, True]}
    return pd.DataFrame({**base, **columns})


def test_numbers_booleans_and_nullable_types_become_float32() -> None:
    rows = make_rows(
        frame(c=pd.array([1, None, 3], dtype="Int64"), d=np.array([1, 2, 3], np.int8)),
        [0, 1, 0],
        [0, 1],
        "training",
    )
    assert rows.features.dtype == np.float32
    assert rows.features.flags.c_contiguous
    assert rows.boolean == (False, True, False, False)
    assert np.isnan(rows.features[1, 2])
    assert rows.positive.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("columns", "target", "words"),
    [
        ({"c": ["x", "y", "z"]}, [0, 1, 0], "'c' has dtype"),
        ({"c": pd.Categorical(["x", "y", "z"])}, [0, 1, 0], "'c' has dtype category"),
        ({"c": pd.date_range("2024", periods=3)}, [0, 1, 0], "only numbers and booleans"),
        ({"c": [1j, 2j, 3j]}, [0, 1, 0], "complex"),
        ({"c": [1.0, np.inf, 2.0]}, [0, 1, 0], "'c' is inf at row 1"),
        ({"c": [1.0, 2.0, 1e39]}, [0, 1, 0], "finite float32"),
        ({}, [0, np.nan, 1], "target is missing at row 1"),
        ({}, [0, 0, 0], "every target is 0"),
        ({}, [0, 2, 1], r"target is .*2.* at row 1; the model's classes are \[0, 1\]"),
    ],
)
def test_rows_that_cannot_be_used(columns: dict[str, Any], target: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_rows(frame(**columns), target, [0, 1], "training")


def test_string_and_boolean_classes() -> None:
    rows = make_rows(frame(), ["ok", "fraud", "ok"], ["ok", "fraud"], "training")
    assert rows.positive.tolist() == [False, True, False]
    rows = make_rows(frame(), [False, True, False], [False, True], "training")
    assert rows.n_positive == 1


def test_files_round_trip_and_bad_ones_are_named(tmp_path: Path) -> None:
    data = frame()
    data.to_parquet(tmp_path / "a.parquet")
    data.to_csv(tmp_path / "a.csv", index=False)
    assert read_frame(tmp_path / "a.parquet").equals(data)
    assert read_frame(tmp_path / "a.csv").equals(data)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "a.xlsx").write_bytes(b"")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("bad.parquet", "a.xlsx", "empty.csv", "missing.parquet"):
        with pytest.raises(InputError, match=name):
            read_frame(tmp_path / name)


def test_split_by_time_keeps_moments_together() -> None:
    data = pd.DataFrame({"t": [5, 1, 4, 4, 2, 3, 4, 0], "x": range(8)})
    train, valid = split_by_time(data, "t", 0.25)
    assert train["t"].max() < valid["t"].min()
    assert sorted(valid["t"]) == [4, 4, 4, 5]
    with pytest.raises(InputError, match="no such column; there are t, x"):
        split_by_time(data, "time", 0.25)
    with pytest.raises(InputError, match="leaves 0 training"):
        split_by_time(data.assign(t=1), "t", 0.25)
    with pytest.raises(InputError, match="row 1 has no time"):
        split_by_time(data.assign(t=[1, np.nan, *range(6)]), "t", 0.25)


def test_feature_names_come_from_the_model() -> None:
    data = frame(y=[0, 1, 0])
    named = SimpleNamespace(feature_names_in_=np.array(["b", "a"]))
    assert feature_names(named, data, ["y"]) == ("b", "a")
    assert feature_names(SimpleNamespace(n_features_in_=2), data, ["y"]) == ("a", "b")
    with pytest.raises(InputError, match="fitted with z, which the data lack"):
        feature_names(SimpleNamespace(feature_names_in_=np.array(["a", "z"])), data, ["y"])
    with pytest.raises(InputError, match="3 features without names, the data have 2"):
        feature_names(SimpleNamespace(n_features_in_=3), data, ["y"])


def test_fingerprint_covers_names_dtypes_values_and_order() -> None:
    data = frame(c=["x", "y", None])
    same = fingerprint(data)
    assert fingerprint(data.copy()) == same
    others = [
        data.rename(columns={"a": "A"}),
        data.astype({"a": np.float32}),
        data.iloc[::-1],
        data[["b", "a", "c"]],
        data.assign(c=["x", "y", "None"]),
        data.iloc[:2],
    ]
    prints = {fingerprint(other) for other in others}
    assert len(prints | {same}) == len(others) + 1
