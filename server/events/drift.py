"""From what drift's thread sees to events: states that matter, and monitors that fail.

Rules: one event for each change of state. Warming says nothing, and what was told before it is
remembered: broken, warming, stable is a recovery. A state is told anew after a restart.
"""

from __future__ import annotations

import math
from typing import Any

from server.drift import Evaluation
from server.events.log import EventLog

ALARMS = ("warning", "retrain", "broken")
N_FEATURES = 5
ADVICE = {
    "warning": "what it is asked differs from its reference",
    "retrain": "it is asked something else than it learned",
    "broken": "features arrive broken; repair the pipeline, do not retrain",
}


class DriftEvents:
    """Turns what `DriftWatch` tells into events. For one thread.

    Parameters
    ----------
    events
        Where to.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told: dict[tuple[str, str], str] = {}  # (model, version) -> state, never warming

    def evaluated(self, model: str, version: str, found: Evaluation) -> None:
        """Take an evaluation whose state may be another than before."""
        state = found.state
        if state == "warming":
            return
        before = self._told.get((model, version), "stable")
        self._told[model, version] = state
        if state == before:
            return
        details = describe(found, before)
        if state in ALARMS:
            why = f": {found.reasons[0]}" if found.reasons else ""
            summary = f"{model} {version}: {ADVICE[state]}{why}"
            self._events.emit(
                f"drift.{state}", summary, model=model, version=version, details=details
            )
        else:
            summary = f"{model} {version}: drift is stable again, after {before}"
            self._events.emit(
                "drift.recovered", summary, model=model, version=version, details=details
            )

    def failed(self, model: str, version: str, error: Exception) -> None:
        """Take a monitor that raised."""
        self._events.emit(
            "drift.failed",
            f"{model} {version}: the drift monitor raised {type(error).__name__}; it begins anew, "
            "and the server's log has the traceback",
            model=model,
            version=version,
            details={"error": type(error).__name__},
        )


def describe(found: Evaluation, before: str) -> dict[str, Any]:
    """Return what an evaluation found, without anybody's rows."""
    features = sorted(
        (feature for feature in found.features if feature.score > 0),
        key=lambda feature: -feature.score,
    )
    return {
        "state": found.state,
        "state_before": before,
        "score": _figure(found.score),
        "score_mean": _figure(found.mean),
        "features_drifted_ratio": _figure(found.drifted_share),
        "raw_score_drift": _figure(found.raw_score_drift),
        "features": [
            {"name": feature.name, "score": _figure(feature.score)}
            for feature in features[:N_FEATURES]
        ],
        "reasons": list(found.reasons),
        "n_rows": int(found.fast.n_rows),
        "span_s": round(float(found.fast.span_s), 1),
    }


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
