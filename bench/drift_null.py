"""Simulations of drift statistics on made-up rows: false alarms, power, delay, clusters.

Every repetition draws a fresh reference of 10,000 rows and a fresh window. The statistics are the
monitor's own functions (`server.drift`), held to alpha / K with K all tests of so many features.
Beside them runs the usual recipe: the mean over features of 1 - p of a Kolmogorov-Smirnov test,
alert over 0.3 (p from Kolmogorov's limit distribution, which at these sizes is its p).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov
from scipy.stats import beta, kstwo

from server.drift.clusters import cluster_design_effect
from server.drift.critical import CriticalCurve, bonferroni, effective_size, table_of
from server.drift.distances import ks_distance
from server.drift.settings import DriftSettings, MonitoredFeature, n_tests
from server.export.reference import KS_SIZES, KS_TAILS

M = 10_000  # rows of a reference
USUAL_ALERT = 0.3
WINDOWS_A_DAY = 144  # ten minutes each, none sharing a row with another
CONFIDENCE = 0.99
ALPHA = DriftSettings().alpha
WARN = DriftSettings().warn

Step = Callable[[str], None]


def upper_bound(n_alarms: int, n: int) -> float:
    """Return the exact (Clopper-Pearson) one-sided upper bound of a rate."""
    return 1.0 if n_alarms >= n else float(beta.ppf(CONFIDENCE, n_alarms + 1, n - n_alarms))


def rate(n_alarms: int, n: int) -> dict[str, Any]:
    """Return a rate of alarms, its bound, and the days between alarms that both mean."""
    bound = upper_bound(n_alarms, n)
    return {
        "alarms": n_alarms,
        "rate": n_alarms / n,
        "bound": bound,
        "days_between": None if not n_alarms else n / (n_alarms * WINDOWS_A_DAY),
        "days_between_at_least": 1 / (bound * WINDOWS_A_DAY),
    }


def theory(n: int, n_features: int, critical: float) -> float:
    """Return what a false warning's rate cannot exceed, for independent rows (Bonferroni)."""
    tail = float(kstwo.sf(max(critical, WARN), round(effective_size(n, M))))
    return min(ALPHA, (n_features + 1) * tail)


def curve(n_features: int) -> CriticalCurve:
    """Return the monitor's critical values for that many numeric features and the score."""
    features = [MonitoredFeature(name=f"f{j}") for j in range(n_features)]
    tail = bonferroni(ALPHA, n_tests(features))
    tails = np.array(sorted({*KS_TAILS.tolist(), tail}, reverse=True))
    distances = kstwo.isf(tails[None, :], KS_SIZES[:, None])
    return CriticalCurve(tail, table_of(KS_SIZES, tails, distances))


def draw(
    rng: np.random.Generator, n_columns: int, n_rows: int, correlation: float
) -> NDArray[np.float32]:
    """Return sorted columns of normal values with one common factor, [n_columns, n_rows]."""
    x = rng.standard_normal((n_columns, n_rows), dtype=np.float32)
    if correlation:
        common = rng.standard_normal(n_rows, dtype=np.float32)
        x *= np.float32(math.sqrt(1 - correlation))
        x += np.float32(math.sqrt(correlation)) * common
    x.sort(axis=1)
    return x


def null_cell(
    n: int, n_features: int, correlation: float, n_repetitions: int, seed: int
) -> dict[str, Any]:
    """Count false alarms of windows that have not drifted."""
    rng = np.random.default_rng((seed, n, n_features, round(correlation * 100)))
    size = effective_size(n, M)
    critical = curve(n_features).at(size)
    significant = warned = usual = 0
    scores = []
    for _ in range(n_repetitions):
        # The raw score is one more column, correlated as the others are.
        reference = draw(rng, n_features + 1, M, correlation)
        window = draw(rng, n_features + 1, n, correlation)
        distance = np.array([ks_distance(w, r) for w, r in zip(window, reference, strict=True)])
        score = float(np.where(distance > critical, distance, 0.0).max())
        scores.append(score)
        significant += score > 0
        warned += score >= WARN
        usual += float(1 - kolmogorov(math.sqrt(size) * distance[:-1]).mean()) > USUAL_ALERT
    return {
        "n": n,
        "features": n_features,
        "correlation": correlation,
        "repetitions": n_repetitions,
        "critical": critical,
        "any_test": rate(significant, n_repetitions),
        "warning": rate(warned, n_repetitions),
        "usual": rate(usual, n_repetitions),
    }


def power_row(
    shift: float, n: int, n_features: int, n_repetitions: int, seed: int
) -> dict[str, Any]:
    """Count windows in which one feature of many has moved by `shift` standard deviations."""
    rng = np.random.default_rng((seed, round(shift * 1000), n))
    critical = curve(n_features).at(effective_size(n, M))
    found = warned = 0
    distances = []
    for _ in range(n_repetitions):
        reference = draw(rng, 1, M, 0.0)[0]
        window = draw(rng, 1, n, 0.0)[0] + np.float32(shift)
        distance = ks_distance(window, reference)
        distances.append(distance)
        found += distance > critical
        warned += distance > critical and distance >= WARN
    return {
        "shift": shift,
        "n": n,
        "repetitions": n_repetitions,
        "expected_distance": math.erf(shift / 2 / math.sqrt(2)),
        "median_distance": float(np.median(distances)),
        "found": found / n_repetitions,
        "warned": warned / n_repetitions,
        # A mean over 30 features of which 29 say nothing.
        "mean_warned": float(np.mean(np.array(distances) / n_features >= WARN)),
    }


def delay_row(
    shift: float, n: int, n_repetitions: int, seed: int, hop: int = 100
) -> dict[str, Any]:
    """Measure rows from a change to the first warning of a sliding window."""
    rng = np.random.default_rng((seed, round(shift * 1000), n, 7))
    critical = curve(30).at(effective_size(n, M))
    delays = []
    for _ in range(n_repetitions):
        reference = draw(rng, 1, M, 0.0)[0]
        before = rng.standard_normal(n, dtype=np.float32)
        after = rng.standard_normal(4 * n, dtype=np.float32) + np.float32(shift)
        stream = np.concatenate([before, after])
        for rows in range(hop, 4 * n + 1, hop):
            distance = ks_distance(np.sort(stream[rows : rows + n]), reference)
            if distance > critical and distance >= WARN:
                delays.append(rows)
                break
        else:
            delays.append(10**9)
    distance = math.erf(shift / 2 / math.sqrt(2))
    median, late = np.quantile(delays, [0.5, 0.9], method="higher")
    return {
        "shift": shift,
        "n": n,
        "hop": hop,
        "repetitions": n_repetitions,
        "formula": 0.1 * n / distance + hop,
        "median": int(median) if median < 10**9 else None,
        "late": int(late) if late < 10**9 else None,
    }


def cluster_row(size: int, within: float, n_repetitions: int, seed: int) -> dict[str, Any]:
    """Count false alarms where rows come in clusters, with and without their design effect."""
    n, n_features = 1000, 10
    rng = np.random.default_rng((seed, size, round(within * 100)))
    critical = curve(n_features)
    plain = corrected = warned = warned_corrected = 0
    effects = []
    for _ in range(n_repetitions):
        reference, clusters = _clustered(rng, n_features, M, size, within)
        window, _ = _clustered(rng, n_features, n, size, within)
        effect = cluster_design_effect(reference[0], clusters)
        effects.append(effect)
        distance = max(
            ks_distance(np.sort(w), np.sort(r)) for w, r in zip(window, reference, strict=True)
        )
        over = distance > critical.at(effective_size(n, M))
        over_corrected = distance > critical.at(effective_size(n, M, effect))
        plain += over
        corrected += over_corrected
        warned += over and distance >= WARN
        warned_corrected += over_corrected and distance >= WARN
    return {
        "cluster_rows": size,
        "correlation_within": within,
        "n": n,
        "features": n_features,
        "repetitions": n_repetitions,
        "design_effect": float(np.mean(effects)),
        "any_test": rate(plain, n_repetitions),
        "any_test_corrected": rate(corrected, n_repetitions),
        "warning": rate(warned, n_repetitions),
        "warning_corrected": rate(warned_corrected, n_repetitions),
    }


def _clustered(
    rng: np.random.Generator, n_columns: int, n_rows: int, size: int, within: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    clusters = np.arange(n_rows) // size
    shared = rng.standard_normal((n_columns, int(clusters[-1]) + 1), dtype=np.float32)
    own = rng.standard_normal((n_columns, n_rows), dtype=np.float32)
    x = math.sqrt(within) * shared[:, clusters] + math.sqrt(1 - within) * own
    return x.astype(np.float32), clusters.astype(np.int64)
