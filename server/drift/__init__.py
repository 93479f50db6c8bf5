"""Drift: whether what is scored now still looks like what the model was validated on.

`Monitor` watches one served version in a background thread; `load_reference` reads what it compares
with from a bundle. docs/monitoring.md explains the method and has its measured error rates.

numpy only. scipy is for reports, in `pvalues.py`, which nothing here imports.
"""

from server.drift.evaluation import (
    CategoryShare,
    Comparison,
    Evaluation,
    FeatureDrift,
    RateChange,
    WindowReport,
)
from server.drift.histograms import Histogram
from server.drift.monitor import Monitor
from server.drift.reference import Reference, load_reference, reference_from_arrays
from server.drift.settings import DriftSettings, MonitoredFeature, monitored_features, n_tests
from server.drift.states import STATES, State

__all__ = [
    "STATES",
    "CategoryShare",
    "Comparison",
    "DriftSettings",
    "Evaluation",
    "FeatureDrift",
    "Histogram",
    "Monitor",
    "MonitoredFeature",
    "RateChange",
    "Reference",
    "State",
    "WindowReport",
    "load_reference",
    "monitored_features",
    "n_tests",
    "reference_from_arrays",
]
