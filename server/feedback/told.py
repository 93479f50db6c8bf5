"""What advice is made of: the parts of GetDrift's, GetQuality's and GetEvents' messages it reads.

Messages of protobuf have these members; so may anything else. Times are in milliseconds since the
epoch; a number that is not known is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Figure(Protocol):
    """One figure of quality, with its 95 % interval."""

    name: str
    threshold: str
    value: float
    low: float
    high: float


class QualityReport(Protocol):
    """One version in one arm and one cohort."""

    model: str
    version: str
    cohort: str
    from_time_ms: int
    to_time_ms: int
    n_decisions: int
    n_positive: int
    note: str

    @property
    def metrics(self) -> Sequence[Figure]:
        """Its figures, those at thresholds by ascending threshold."""


class Window(Protocol):
    """A window of drift."""

    span_s: float


class DriftReport(Protocol):
    """What drift is known of one version."""

    model: str
    version: str
    state: str
    trouble: str
    score: float
    evaluated_time_ms: int
    reference_time_ms: int

    @property
    def reasons(self) -> Sequence[str]:
        """Why it is in its state, the gravest first."""

    @property
    def slow(self) -> Window:
        """The slow window."""

    @property
    def features(self) -> Sequence[object]:
        """One for each feature of the model."""


class Event(Protocol):
    """What was told of a version, and when."""

    kind: str
    time_ms: int
    model: str
    version: str
