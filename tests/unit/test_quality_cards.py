"""Card precision at k, against the handbook's own way of computing it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.feedback.quality.card_precision import DAY_MS, SPARE, card_precision
from tests.support.quality import Scored, scored


def by_the_handbook(frame: pd.DataFrame, k: int) -> float:
    """Chapter 4.4's definition, in its own terms: a table of days, cards, predictions, frauds."""
    found: list[int] = []
    by_day = []
    for date in sorted(set(frame["day"])):
        day = frame[(frame["day"] == date) & ~frame["card"].isin(found)]
        cards = day.groupby("card")[["prediction", "fraud"]].max()
        top = cards.sort_values("prediction", ascending=False).head(k)
        detected = list(top[top["fraud"] == 1].index)
        by_day.append(len(detected) / k)
        found += detected
    return float(np.mean(by_day))


def _days(rows: Scored, seed: int, n_days: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    random = np.random.default_rng(seed)
    return random.integers(20_000 * DAY_MS, (20_000 + n_days) * DAY_MS, len(rows.raw))


def _frame(rows: Scored, time_ms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "day": time_ms // DAY_MS,
            "card": rows.entity,
            "prediction": rows.raw,
            "fraud": rows.label,
        }
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1), st.integers(5, 600), st.integers(1, 200), st.integers(1, 6),
    st.integers(1, 40),
)  # fmt: skip
def test_it_is_the_handbooks(seed: int, n: int, n_cards: int, n_days: int, k: int) -> None:
    rows = scored(seed, n, share=0.2, n_cards=n_cards)
    rows = rows._replace(raw=np.random.default_rng(seed).permutation(n).astype(np.float32))
    time_ms = _days(rows, seed, n_days)
    found = card_precision(rows.entity, time_ms, rows.raw, rows.label, k)
    assert found.point == pytest.approx(by_the_handbook(_frame(rows, time_ms), k), abs=1e-12)


def test_cards_beyond_reach_are_not_looked_at_and_change_nothing() -> None:
    rows = scored(1, 40_000, share=0.2, n_cards=8000)
    rows = rows._replace(raw=np.random.default_rng(1).permutation(40_000).astype(np.float32))
    time_ms = _days(rows, 1, 5)
    k = 20
    assert SPARE * k + 100 < 8000 / 10
    found = card_precision(rows.entity, time_ms, rows.raw, rows.label, k, n_replicates=100)
    assert found.point == pytest.approx(by_the_handbook(_frame(rows, time_ms), k), abs=1e-12)
    assert 0.01 < found.values.std() < 0.1
    assert abs(np.median(found.values) - found.point) < 0.1


def test_replicates_spread_as_other_samples_do() -> None:
    points, spreads = [], []
    for seed in range(60):
        rows = scored(seed, 3000, share=0.02, n_cards=1500)
        time_ms = _days(rows, seed, 3)
        replicates = 100 if seed < 5 else 0
        found = card_precision(
            rows.entity, time_ms, rows.raw, rows.label, 30, n_replicates=replicates
        )
        points.append(found.point)
        if replicates:
            spreads.append(found.values.std())
    assert np.mean(spreads) == pytest.approx(np.std(points), rel=0.35)


def test_what_is_missing_makes_it_unknown() -> None:
    rows = scored(2, 50, n_cards=30)
    time_ms = _days(rows, 2, 1)
    arguments = (rows.entity, time_ms, rows.raw, rows.label)
    assert not np.isnan(card_precision(*arguments, 40).point)
    assert np.isnan(card_precision(*arguments, 40, all_from=-3.0).point)
    assert not np.isnan(card_precision(*arguments, 10, all_from=-3.0).point)
    none = np.empty(0, np.int64)
    assert np.isnan(
        card_precision(none, none, none.astype(np.float32), none.astype(np.int8), 5).point
    )


def test_the_highest_scores_and_the_frauds_are_enough() -> None:
    rows = scored(3, 20_000, share=0.1, n_cards=4000)
    time_ms = _days(rows, 3, 4)
    whole = card_precision(rows.entity, time_ms, rows.raw, rows.label, 25)
    cut = float(np.quantile(rows.raw, 0.96))
    read = (rows.raw >= cut) | (rows.label == 1)
    found = card_precision(
        rows.entity[read], time_ms[read], rows.raw[read], rows.label[read], 25, all_from=cut
    )
    assert found.point == whole.point
