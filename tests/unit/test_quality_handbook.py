"""Quality on the handbook's weeks: its card precision, and estimates against what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.feedback.quality import from_bins, score_edges
from server.feedback.quality.bootstrap import interval
from server.feedback.quality.card_precision import card_precision
from server.feedback.quality.counts import count_rows
from server.feedback.quality.estimate import bin_probabilities, expected
from tests.support.handbook import FILE, Weeks, needs_handbook, read_weeks
from tests.support.quality import sigmoid

pytestmark = needs_handbook

CUTS = tuple(float(np.log(p / (1 - p))) for p in (0.05, 0.5))


class Handbook(NamedTuple):
    frame: pd.DataFrame
    test: pd.DataFrame  # as published: without cards that are known to be compromised
    raw: Callable[[pd.DataFrame], NDArray[np.float32]]

    def week(self, first: str) -> pd.DataFrame:
        day = self.frame["TX_DATETIME"].dt.normalize()
        start = pd.Timestamp(first)
        chosen: pd.DataFrame = self.frame[day.between(start, start + pd.Timedelta(days=6))]
        return chosen


@pytest.fixture(scope="module")
def handbook() -> Handbook:
    weeks = read_weeks()
    model = make_pipeline(StandardScaler(), LogisticRegression(random_state=0))
    model.fit(weeks.features(weeks.train), weeks.train["TX_FRAUD"])

    def raw(rows: pd.DataFrame) -> NDArray[np.float32]:
        found: NDArray[Any] = model.decision_function(Weeks.features(rows))
        return found.astype(np.float32)

    return Handbook(pd.read_parquet(FILE), weeks.test, raw)


def test_card_precision_at_100_is_the_published_one(handbook: Handbook) -> None:
    week = handbook.test
    found = card_precision(
        week["CUSTOMER_ID"].to_numpy().astype(np.int64),
        week["TX_DATETIME"].to_numpy().astype("datetime64[ms]").astype(np.int64),
        handbook.raw(week),
        week["TX_FRAUD"].to_numpy().astype(np.int8),
        100,
        n_replicates=200,
    )
    assert round(found.point, 3) == 0.291
    low, high = interval(found.point, found)
    assert 0.02 < high - low < 0.15


@pytest.mark.parametrize(
    ("week", "within"),
    [("2018-08-08", 0.05), ("2018-08-15", 0.05), ("2018-08-22", 0.05), ("published", 0.08)],
)
def test_estimates_come_near_what_came(handbook: Handbook, week: str, within: float) -> None:
    """Calibrated on the week before: nothing in these weeks changes what fraud looks like.

    In the published week known cards are missing, and with them a quarter of the fraud: who is
    positive at a score is not quite who it was.
    """
    before = handbook.week("2018-08-01")
    known = handbook.raw(before)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(known.astype(np.float64), before["TX_FRAUD"])
    calibration = (fitted.X_thresholds_, fitted.y_thresholds_)
    rows = handbook.test if week == "published" else handbook.week(week)
    raw, fraud = handbook.raw(rows), rows["TX_FRAUD"].to_numpy().astype(np.int8)
    ones = np.ones(len(raw))
    edges = score_edges(np.sort(known)[::7], CUTS)
    score = sigmoid(raw)
    silent = count_rows(edges, raw, score, np.full(len(raw), -2, np.int8), ones, ones)
    real = count_rows(edges, raw, score, fraud, ones, ones)
    guess = expected(silent, bin_probabilities(calibration, edges, raw[:20_000]))
    came = (real.negative.weight, real.positive.weight)
    for cut in CUTS:
        first = real.first_above(cut)
        a, b = from_bins.confusion(*guess, first), from_bins.confusion(*came, first)
        assert a.recall == pytest.approx(b.recall, abs=within)
        assert a.precision == pytest.approx(b.precision, abs=within)
    assert from_bins.auc(*guess) == pytest.approx(from_bins.auc(*came), abs=0.03)
    assert from_bins.average_precision(*guess) == pytest.approx(
        from_bins.average_precision(*came), abs=0.05
    )
