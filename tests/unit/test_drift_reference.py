"""References: what an export writes is what a monitor reads; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from msgspec import structs
from scipy.stats import kstwo
from sklearn.ensemble import GradientBoostingClassifier

from server.bundle import read_bundle
from server.bundle.arrays import decode_arrays, encode_arrays
from server.bundle.schema import FeatureEntry
from server.drift import (
    DriftSettings,
    Monitor,
    MonitoredFeature,
    load_reference,
    monitored_features,
    n_tests,
    reference_from_arrays,
)
from server.drift.critical import CriticalCurve
from server.drift.hours import hour_of_week
from server.errors import BundleError
from server.export import ExportOptions, FeatureOptions, export_model
from server.export.reference import DRIFT_ALPHA, build_reference, reference_arrays
from server.export.times import event_times_ms
from tests.support.drift import FEATURES, START_MS, make_arrays, make_rows, raw_of
from tests.support.models import make_data

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return make_arrays(np.random.default_rng(0))


def test_a_reference_holds_what_was_exported(arrays: Arrays) -> None:
    again = decode_arrays(encode_arrays(arrays), "reference.npz")
    reference = reference_from_arrays(again, FEATURES)
    rows = make_rows(np.random.default_rng(0), 10_000)
    assert reference.n_rows == 10_000
    assert np.array_equal(reference.values[0], np.sort(rows[:, 0]))
    assert np.array_equal(reference.values[4], np.sort(raw_of(rows)))
    shares = np.bincount(rows[:, 2].astype(int))
    assert reference.columns.bins(reference.counts, 2).tolist() == [*shares.tolist(), 0]
    assert np.array_equal(
        reference.counts, reference.columns.count(*reference.columns.tidy(rows, raw_of(rows), None))
    )
    assert reference.notes == ()
    assert (reference.null_chunk_rows, reference.n_null_chunks) == (1000, 10)
    assert set(reference.null_quantiles) == {0.5, 0.9, 0.95, 0.99}
    assert (reference.design_effect < 3).all()  # independent rows
    tail = DRIFT_ALPHA / n_tests(FEATURES)
    assert CriticalCurve(tail, reference.critical).at(1600) == pytest.approx(
        kstwo.isf(tail, 1600), rel=1e-9
    )


def test_rows_that_come_in_days_have_a_design_effect() -> None:
    rng = np.random.default_rng(1)
    rows = make_rows(rng, 10_000)
    rows[:, 0] *= np.repeat(rng.lognormal(sigma=0.3, size=20), 500)
    shuffled = build_reference(rng.permutation(rows), raw_of(rows), FEATURES)
    in_order = build_reference(rows, raw_of(rows), FEATURES)
    assert in_order["design_effect"][0] > 5 > 2 > shuffled["design_effect"][0]
    assert in_order["null_quantile"][-1] > 0.05
    # Times put shuffled rows in order again.
    order = rng.permutation(10_000)
    by_time = build_reference(rows[order], raw_of(rows)[order], FEATURES, START_MS + order * 1000)
    assert by_time["design_effect"].tolist() == in_order["design_effect"].tolist()


def test_hours_are_counted_where_times_are_known() -> None:
    night = (*FEATURES[:1], MonitoredFeature(name="night", type="boolean", monitor="calendar"))
    rng = np.random.default_rng(2)
    times = START_MS + np.sort(rng.integers(0, 7 * 86_400_000, 8000))
    rows = make_rows(rng, 8000)[:, :2]
    rows[:, 1] = hour_of_week(times) % 24 < 6
    reference = reference_from_arrays(build_reference(rows, rows[:, 0], night, times), night)
    assert set(reference.hours) == {1, 2}  # the flag, and the raw score beside it
    table = reference.hours[1]
    assert table.sum() == 8000
    assert not table[np.arange(168) % 24 < 6, 0].any()
    assert not table[np.arange(168) % 24 >= 6, 1].any()
    assert np.array_equal(table.sum(axis=0)[:2], [8000 - rows[:, 1].sum(), rows[:, 1].sum()])
    assert reference.hours[2].sum() == 8000
    without = reference_from_arrays(build_reference(rows, rows[:, 0], night), night)
    assert without.hours == {}
    assert any("night" in note and "kept out" in note for note in without.notes)


def test_older_references_are_read_and_say_what_is_off() -> None:
    rows = make_rows(np.random.default_rng(0), 2000)
    older = reference_arrays(rows, raw_of(rows), [False, True, False, False])
    for name in ("ks_tail", "ks_tail_critical"):
        del older[name]
    reference = reference_from_arrays(older, FEATURES)
    assert reference.critical is None
    text = "\n".join(reference.notes)
    for part in ("channel: no category counts", "critical values", "design effects", "null"):
        assert part in text
    monitor = Monitor(reference, FEATURES, DriftSettings(min_span_s=0), lambda: START_MS)
    now = make_rows(np.random.default_rng(5), 1500)
    now[:, 0] *= 3
    monitor.observe(now, raw_of(now), None, np.full(1500, START_MS))
    evaluation = monitor.evaluate()
    assert evaluation is not None
    assert evaluation.state == "warning"
    assert evaluation.features[0].score > 0.3
    assert evaluation.features[2].measure == "none"
    assert "no category counts" in evaluation.features[2].note


def test_a_reference_of_another_schema_is_refused(arrays: Arrays) -> None:
    with pytest.raises(BundleError, match=r"made for 4 features, the schema has 3.*another model"):
        reference_from_arrays(arrays, FEATURES[:3])
    renamed = (MonitoredFeature(name="sum"), *FEATURES[1:])
    with pytest.raises(BundleError, match="other names or types"):
        reference_from_arrays(arrays, renamed)
    retyped = (*FEATURES[:3], MonitoredFeature(name="n_day", type="boolean"))
    with pytest.raises(BundleError, match="other names or types"):
        reference_from_arrays(arrays, retyped)
    longer = (
        *FEATURES[:2],
        MonitoredFeature(name="channel", type="categorical", vocabulary=("web", "pos")),
        FEATURES[3],
    )
    with pytest.raises(BundleError, match="3 categories, the schema has 2"):
        reference_from_arrays(arrays, longer)
    reference = reference_from_arrays(arrays, FEATURES)
    with pytest.raises(BundleError, match=r"feature 0 is 'amount'.*'sum'"):
        Monitor(reference, renamed, DriftSettings())


def _set(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[name] = change(arrays[name].copy())

    return apply


def _first(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("values"), "'values' is missing: not a reference"),
        (_set("values", _first(1e9)), "values of amount are not in ascending order"),
        (_set("values", _first(np.nan)), "values of amount are not in ascending order"),
        (_set("bin_upper", _first(1e9)), "bin_upper of amount are not in ascending order"),
        (_set("bin_count", _first(-5)), "counts of amount do not add up"),
        (_set("missing_count", _first(7)), "counts of amount do not add up"),
        (_set("values_offsets", _first(3)), "values_offsets does not fit"),
        (_set("bin_count_offsets", lambda a: a[:-1]), "bin_count_offsets does not fit"),
        (_set("n_rows", lambda a: a.astype(float)), "n_rows"),
        (_set("category_count", _first(-1)), "category_count of foreign is wrong|do not add up"),
        (_set("ks_tail_critical", lambda a: a[:, :2]), "ks_tail_critical has the shape"),
        (_set("ks_tail_critical", _first(np.inf)), "values be finite"),
        (_set("ks_tail", _first(2.0)), "probabilities"),
        (_set("design_effect", _first(np.nan)), "design_effect"),
        (_set("null_quantile", lambda a: a[:2]), "null_quantile does not fit"),
        (_set("schema_fingerprint", lambda _: np.array([np.nan])), "other names or types"),
        (lambda a: a.update(hour_column=np.array([np.nan])), "hour_column: 1 float64, not"),
        (_set("bin_count", lambda a: a * np.nan), "bin_count: float64, not integers"),
    ],
)
def test_damaged_references_are_refused(
    arrays: Arrays, spoil: Callable[[Arrays], None], message: str
) -> None:
    spoiled = dict(arrays)
    spoil(spoiled)
    with pytest.raises(BundleError, match=message):
        reference_from_arrays(spoiled, FEATURES)


def _spoiled(array: np.ndarray) -> Iterator[np.ndarray]:
    """The ways in which a plain numeric array can be wrong."""
    yield from (array[:0], array[:-1], array[::-1], array[None], np.zeros_like(array))
    yield np.concatenate([array, array[-1:]])
    yield np.array(3)
    for value in (np.nan, np.inf, -np.inf, -1, True, np.iinfo(np.int64).max):
        yield np.full(array.shape, value)


def test_whatever_a_reference_holds_it_is_refused_or_works() -> None:
    features = (FEATURES[0], structs.replace(FEATURES[1], monitor="calendar"), *FEATURES[2:])
    rng = np.random.default_rng(4)
    times = START_MS + np.sort(rng.integers(0, 7 * 86_400_000, 3000))
    arrays = make_arrays(rng, 3000, features, times)
    window = make_rows(rng, 700)
    n_refused = n_fine = 0
    for name, array in arrays.items():
        for spoiled in _spoiled(array):
            with np.errstate(over="ignore"):  # sums of counts that nothing can hold
                try:
                    reference = reference_from_arrays({**arrays, name: spoiled}, features)
                except BundleError:
                    n_refused += 1
                    continue
            monitor = Monitor(reference, features, DriftSettings(min_span_s=0), lambda: START_MS)
            monitor.observe(window, raw_of(window), None, np.full(700, START_MS))
            evaluation = monitor.evaluate(force=True)
            assert evaluation is not None
            assert 0 <= evaluation.score <= 1, (name, spoiled)
            monitor.restore(monitor.to_bytes())
            n_fine += 1
    assert min(n_refused, n_fine) > 50


def test_what_a_schema_says_of_drift_is_what_is_watched() -> None:
    entries = [
        FeatureEntry(name="a", type="numeric", source="customer", weight=0.5),
        FeatureEntry(name="b", type="categorical", vocabulary=["x"], monitor="off"),
    ]
    first, second = monitored_features(entries)
    assert (first.stored, first.weight, second.monitor, second.vocabulary) == (
        True,
        0.5,
        "off",
        ("x",),
    )
    assert n_tests([first]) == 4  # distribution, missing, fallback; and the score
    assert n_tests([first, second]) == 4
    assert n_tests(FEATURES) == 1 + 2 + 2 + 3 + 3


def test_event_times() -> None:
    moments = pd.Series(pd.to_datetime(["2024-01-01 00:00:01", "2024-01-01 01:00:00"]))
    expected = [1_704_067_201_000, 1_704_070_800_000]
    for column in (
        moments,
        moments.dt.tz_localize("UTC").dt.tz_convert("Europe/Brussels"),
        moments.astype(str),
    ):
        found = event_times_ms(column)
        assert found is not None
        assert found.tolist() == expected
    for other in ([1, 2], [1.5], ["soon"]):
        assert event_times_ms(pd.Series(other)) is None


def test_an_exported_bundle_brings_its_reference(tmp_path: Path) -> None:
    data = make_data(2400)
    frame = data.frame.assign(f2=data.x[:, 2] > 0)
    model = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(frame, data.y)
    times = START_MS + np.arange(2400) * 60_000
    options = ExportOptions(
        features={
            "f2": FeatureOptions(monitor="calendar"),
            "f3": FeatureOptions(monitor="off", weight=0.5),
        },
        valid_time_ms=times,
    )
    out = tmp_path / "model" / "1.0"
    export_model(model, frame, data.y, frame, data.y, out=out, options=options)
    reference = load_reference(read_bundle(out))
    assert [f.monitor for f in reference.features[2:4]] == ["calendar", "off"]
    assert reference.features[3].weight == 0.5
    assert set(reference.hours) == {2, 6}  # the flag and the raw score
    assert reference.hours[2].sum() == reference.n_rows == 2400
    assert reference.time_ms is not None
    assert reference.critical is not None
    assert [note.split(":")[0] for note in reference.notes] == [
        "no design effects",
        "too few validation rows for null quantiles of the drift score",
    ]
