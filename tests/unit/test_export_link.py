"""Thresholds in raw-score space, and the correction for another prevalence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from server.bundle.link import Link, prior_shift, shift_odds, smallest_raw, to_score
from server.errors import InputError


@settings(max_examples=150, derandomize=True)
@given(
    score=st.floats(1e-6, 1 - 1e-6),
    link=st.sampled_from(["logit", "identity"]),
    shift=st.sampled_from([0.0, -3.2, 1.5]),
)
def test_smallest_raw_is_the_first_float32_that_reaches_the_score(
    score: float, link: Link, shift: float
) -> None:
    raw = np.float32(smallest_raw(score, link, shift, "t"))
    below = np.nextafter(raw, np.float32(-np.inf))
    assert to_score(raw, link, shift) >= score
    assert to_score(below, link, shift) < score


def test_scores_equal_scipys_logistic_function() -> None:
    raw = np.linspace(-40, 40, 101).astype(np.float32)
    assert np.allclose(to_score(raw, "logit", 0.5), expit(raw.astype(float) + 0.5), rtol=1e-14)


@pytest.mark.parametrize("score", [0.0, -0.1, 1.1, math.nan])
def test_scores_that_cannot_be_thresholds(score: float) -> None:
    with pytest.raises(InputError, match="threshold review="):
        smallest_raw(score, "logit", 0.0, "review")


def test_certainty_is_reachable() -> None:
    assert smallest_raw(1.0, "identity", 0.0, "t") == 1.0
    assert to_score(np.float32(smallest_raw(1.0, "logit", 0.0, "t")), "logit") == 1.0


def test_prior_shift_moves_the_prevalence_to_the_serving_one() -> None:
    shift = prior_shift(0.01, 0.2)
    # A score that says nothing new at training says nothing new at serving.
    assert shift_odds(0.2, shift) == pytest.approx(0.01)
    assert to_score(math.log(0.2 / 0.8), "logit", shift) == pytest.approx(0.01)
    assert prior_shift(0.3, 0.3) == 0.0
    with pytest.raises(InputError, match="--prior"):
        prior_shift(1.0, 0.2)
