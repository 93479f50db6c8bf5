"""The monitor on the handbook's weeks: untouched ones, and ones with a fault put in.

Each week is held against the week before it, which is the reference with its times. The raw score
is a logistic regression fitted on the reference week. A made-up categorical column ("CHANNEL",
three codes) joins the 15 features, so that categories are tried too. Customer and terminal
features count as stored ones. SCOREGATE_HANDBOOK names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.drift_null import USUAL_ALERT
from server.demo.columns import BOOLEANS, FEATURES, TARGET
from server.drift import DriftSettings, Monitor, MonitoredFeature, Reference, reference_from_arrays
from server.drift.columns import BATCH, DEFAULT, UNSEEN
from server.drift.pvalues import ks_p_value
from server.drift.settings import Kind
from server.export.reference import build_reference

DEFAULT_FILE = Path(__file__).parents[1] / "../shared/data/handbook_transactions.parquet"
FIRST = "2018-07-18"
N_WEEKS = 6
DAY_MS = 86_400_000
CHANNELS = ("web", "pos", "phone")
CHANNEL_SHARES = (0.5, 0.4, 0.1)
NAMES = (*FEATURES, "CHANNEL")
HOP = 200  # rows between evaluations

Floats = NDArray[np.float32]


def handbook_file() -> Path:
    """Return where the handbook's transactions would be."""
    return Path(os.environ.get("SCOREGATE_HANDBOOK", DEFAULT_FILE))


Watch = Literal["auto", "off", "calendar"]  # how a feature is monitored


@dataclass(frozen=True)
class Rows:
    """Transactions in the order of time."""

    values: Floats  # [n, 16]
    sources: NDArray[np.uint8]
    time_ms: NDArray[np.int64]
    customer: NDArray[np.int64]
    fraud: NDArray[np.bool_]

    def __getitem__(self, part: slice | NDArray[Any]) -> Rows:
        return Rows(
            self.values[part],
            self.sources[part],
            self.time_ms[part],
            self.customer[part],
            self.fraud[part],
        )


def features(calendar: Watch) -> tuple[MonitoredFeature, ...]:
    """Return the schema; `calendar` is what night and weekend are monitored as."""
    found = []
    for name in NAMES:
        kind: Kind = "boolean" if name in BOOLEANS else "numeric"
        found.append(
            MonitoredFeature(
                name=name,
                type="categorical" if name == "CHANNEL" else kind,
                vocabulary=CHANNELS if name == "CHANNEL" else (),
                monitor=calendar if name in BOOLEANS else "auto",
                stored=name.startswith(("CUSTOMER", "TERMINAL")),
            )
        )
    return tuple(found)


def read_rows(path: Path) -> Rows:
    """Read the file; the column of channels is drawn with a fixed seed."""
    frame = pd.read_parquet(path).sort_values("TX_DATETIME", kind="stable")
    rng = np.random.default_rng(2018)
    channel = rng.choice(len(CHANNELS), size=len(frame), p=CHANNEL_SHARES)
    values = np.column_stack([frame[list(FEATURES)].to_numpy(np.float32), channel])
    sources = np.full(values.shape, 1, np.uint8)
    sources[:, [name.startswith(("CUSTOMER", "TERMINAL")) for name in NAMES]] = 2
    return Rows(
        np.ascontiguousarray(values, np.float32),
        sources,
        frame["TX_DATETIME"].to_numpy(dtype="datetime64[ms]").astype(np.int64),
        frame["CUSTOMER_ID"].to_numpy(np.int64),
        frame[TARGET].to_numpy(np.bool_),
    )


def days(rows: Rows, first: int, n: int) -> Rows:
    """Return n days, counted from the file's first."""
    start = int(pd.Timestamp(FIRST).value // 1_000_000) + first * DAY_MS
    at = np.searchsorted(rows.time_ms, [start, start + n * DAY_MS])
    return rows[slice(int(at[0]), int(at[1]))]


@dataclass(frozen=True)
class Scored:
    """A reference week: its model, and itself as a reference."""

    score: Callable[[Floats], Floats]
    reference: Reference


def reference_week(rows: Rows, calendar: Watch = "calendar", *, with_times: bool = True) -> Scored:
    """Fit the model on a week and make the reference of it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(rows.values[:, :-1], rows.fraud)

    def score(values: Floats) -> Floats:
        return np.asarray(model.decision_function(values[:, :-1]), np.float32)

    times = rows.time_ms if with_times else None
    arrays = build_reference(rows.values, score(rows.values), features(calendar), times)
    return Scored(score, reference_from_arrays(arrays, features(calendar)))


def replay(scored: Scored, rows: Rows, settings: DriftSettings) -> list[tuple[int, Any]]:
    """Show rows to a monitor; return (rows shown, evaluation) after every hop."""
    now = [0]
    reference = scored.reference
    monitor = Monitor(reference, reference.features, settings, lambda: now[0])
    raw = scored.score(rows.values)
    found = []
    for start in range(0, len(raw), HOP):
        part = slice(start, start + HOP)
        now[0] = int(rows.time_ms[part][-1])
        monitor.observe(rows.values[part], raw[part], rows.sources[part], rows.time_ms[part])
        found.append((min(start + HOP, len(raw)), monitor.evaluate(force=True)))
    return found


def untouched(
    rows: Rows, n_window: int, calendar: Watch, *, with_times: bool = True
) -> dict[str, Any]:
    """Hold each week against the one before, in windows that share no row."""
    settings = DriftSettings(n_rows=n_window, min_rows=min(600, n_window))
    windows = warned = high_pairs = pairs = usual = 0
    states: dict[str, int] = {}
    for week in range(1, N_WEEKS):
        scored = reference_week(days(rows, 7 * (week - 1), 7), calendar, with_times=with_times)
        seen = replay(scored, days(rows, 7 * week, 7), settings)
        own = [e for n, e in seen if n % n_window == 0 and e.state != "warming"]
        scores = np.array([e.score for e in own])
        windows += len(scores)
        warned += int((scores >= settings.warn).sum())
        high = scores >= settings.retrain
        pairs += len(scores) - 1
        high_pairs += int((high[1:] & high[:-1]).sum())
        usual += sum(_usual(e) > USUAL_ALERT for e in own)
        for _, evaluation in seen:
            states[evaluation.state] = states.get(evaluation.state, 0) + 1
    return {
        "window": n_window,
        "calendar": calendar if with_times else f"{calendar}, no times",
        "windows": windows,
        "warned": warned / windows,
        "high_pairs": high_pairs / pairs,
        "usual": usual / windows,
        "states": states,
    }


def _usual(evaluation: Any) -> float:
    """Return the mean over features of 1 - p."""
    values = []
    for f in evaluation.features:
        if f.measure == "ks":
            values.append(1 - ks_p_value(f.distance, f.n_window, f.n_reference))
        elif f.measure == "js":
            values.append(1 - f.p_value)
    return float(np.mean(values))


Fault = Callable[[Rows, np.random.Generator], None]


def _amount(rows: Rows, _rng: np.random.Generator) -> None:
    rows.values[:, NAMES.index("TX_AMOUNT")] *= 100


def _dropped(rows: Rows, _rng: np.random.Generator) -> None:
    rows.values[:, NAMES.index("TX_AMOUNT")] = 44.6  # the default: the median
    rows.sources[:, NAMES.index("TX_AMOUNT")] = DEFAULT


def _new_category(rows: Rows, rng: np.random.Generator) -> None:
    rows.sources[rng.random(len(rows.values)) < 0.15, NAMES.index("CHANNEL")] = UNSEEN


def _mix(rows: Rows, rng: np.random.Generator) -> None:
    n = len(rows.values)
    rows.values[:, NAMES.index("CHANNEL")] = rng.choice(3, size=n, p=(0.25, 0.25, 0.5))


def _stuck(rows: Rows, _rng: np.random.Generator) -> None:
    for j, name in enumerate(NAMES):
        if name.startswith("CUSTOMER"):
            rows.values[:, j] = rows.values[0, j]


def _store_down(rows: Rows, _rng: np.random.Generator) -> None:
    for j, name in enumerate(NAMES):
        if name.startswith("CUSTOMER"):
            rows.sources[:, j] = BATCH


def _tenth_missing(rows: Rows, rng: np.random.Generator) -> None:
    rows.sources[rng.random(len(rows.values)) < 0.05, NAMES.index("TX_AMOUNT")] = DEFAULT


def _nothing(_rows: Rows, _rng: np.random.Generator) -> None:
    return


FAULTS: dict[str, Fault] = {
    "no change at all": _nothing,
    "amounts in cents (x 100)": _amount,
    "TX_AMOUNT dropped": _dropped,
    "a new category in 15 % of rows": _new_category,
    "other shares of known categories": _mix,
    "customer features stuck at one value": _stuck,
    "customer features from the batch table only": _store_down,
    "5 % of amounts missing": _tenth_missing,
}


def fault_row(rows: Rows, name: str, n_days: int = 3) -> dict[str, Any]:
    """Put a fault in after two healthy days; return rows from there to each state.

    The reference is the third week; the healthy days are the next two, the fault lasts `n_days`.
    """
    scored = reference_week(days(rows, 14, 7))
    healthy = days(rows, 21, 2)
    faulty = days(rows, 23, n_days)
    faulty = replace(faulty, values=faulty.values.copy(), sources=faulty.sources.copy())
    FAULTS[name](faulty, np.random.default_rng(4))
    both = [
        getattr(part, field)
        for field in ("values", "sources", "time_ms", "customer", "fraud")
        for part in (healthy, faulty)
    ]
    stream = Rows(*(np.concatenate(both[i : i + 2]) for i in range(0, 10, 2)))
    start = len(healthy.values)
    first: dict[str, int] = {}
    before: dict[str, int] = {}
    named = ""
    for n, evaluation in replay(scored, stream, DriftSettings()):
        if n <= start:
            before[evaluation.state] = before.get(evaluation.state, 0) + 1
            continue
        if evaluation.state not in first:
            first[evaluation.state] = n - start
            if evaluation.state in {"warning", "broken", "retrain"} and not named:
                named = evaluation.reasons[0]
        last = evaluation
    return {
        "fault": name,
        "before": before,
        "rows_to": {k: v for k, v in first.items() if k in {"warning", "retrain", "broken"}},
        "rows": len(faulty.values),
        "last_state": last.state,
        "last_score": last.score,
        "named": named,
        "usual_before_and_after": _usual_mean(scored, healthy, faulty),
    }


def _usual_mean(scored: Scored, healthy: Rows, faulty: Rows) -> tuple[float, float]:
    """Return the usual recipe's score of the last window before the fault and the last in it."""
    settings = DriftSettings()
    found = []
    for part in (healthy, faulty):
        last = part[slice(len(part.values) - settings.n_rows, None)]
        found.append(_usual(replay(scored, last, settings)[-1][1]))
    return found[0], found[1]


def customers(rows: Rows, n_customers: int, n_repetitions: int, seed: int) -> dict[str, Any]:
    """Windows of some customers' whole week, held against all customers of the same week.

    Night and weekend are off: this is about clusters, and the week is the same.
    """
    from server.drift.clusters import cluster_design_effect
    from server.drift.comparison import compare

    week = days(rows, 21, 7)
    scored = reference_week(week, "off")
    reference = scored.reference
    raw = scored.score(week.values)
    # The largest of the features' design effects, as clusters of whole customers have them.
    effects = [
        cluster_design_effect(week.values[:, j], week.customer)
        for j, f in enumerate(reference.features)
        if f.monitor != "off"
    ]
    ids = np.unique(week.customer)
    rng = np.random.default_rng(seed)
    plain = corrected = 0
    sizes = []
    with_effect = DriftSettings(design_effect=max(effects))
    for _ in range(n_repetitions):
        chosen = np.isin(week.customer, rng.choice(ids, n_customers, replace=False))
        part = week[chosen]
        sizes.append(len(part.values))
        values, fallback = reference.columns.tidy(part.values, raw[chosen], part.sources)
        counts = reference.columns.count(values, fallback)
        plain += compare(reference, counts, DriftSettings()).largest >= 0.1
        corrected += compare(reference, counts, with_effect).largest >= 0.1
    return {
        "customers": n_customers,
        "rows": float(np.mean(sizes)),
        "repetitions": n_repetitions,
        "largest_design_effect": max(effects),
        "median_design_effect": float(np.median(effects)),
        "warned": plain / n_repetitions,
        "warned_corrected": corrected / n_repetitions,
    }
