"""Rows of a cohort, for what counts by bin cannot tell: how cards vary, and cards by the day.

Bounded in what is looked at and in what is kept. The newest segments are read, whole; where even
these hold too much, one card in two, four, ... is kept, with all of its rows. What cards have in
common stays together in both cases: that is what the rows are read for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.cohorts import outcomes
from server.feedback.quality.reports import LABELLED
from server.feedback.reading import DecidedRows, Reader
from server.feedback.segments import Segment

MAX_SCANNED = 2_000_000
MAX_ROWS = 50_000


class LabelledRows(NamedTuple):
    """Rows that count, n of them."""

    entity: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    raw: NDArray[np.float32]
    score: NDArray[np.float32]
    label: NDArray[np.int8]  # 0 or 1
    weight: NDArray[np.float64]
    amount: NDArray[np.float64]  # NaN: not said


def newest(segments: Sequence[Segment], max_rows: int) -> list[Segment]:
    """Return the newest segments that hold so many rows at most, and one at least."""
    chosen: list[Segment] = []
    n_rows = 0
    for segment in sorted(segments, reverse=True):
        n_rows += segment.n_rows
        if chosen and n_rows > max_rows:
            break
        chosen.append(segment)
    return chosen


def read_rows(
    reader: Reader,
    cohort: str,
    segments: Sequence[Segment],
    versions: Collection[int],
    unseen: Collection[int],
    *,
    n_used: int,
    raw_from: float | None = None,
) -> LabelledRows:
    """Return rows of a cohort.

    Parameters
    ----------
    reader
    cohort
        "matured" or "labelled".
    segments
        Those of the cohort.
    versions
        Numbers of what decided.
    unseen
        Decisions after which no outcome can be seen.
    n_used
        About how many rows there are: what of them is kept follows from it.
    raw_from
        Only raw scores from here on, and positive outcomes.
    """
    one_in = 1
    while n_used / one_in > MAX_ROWS:
        one_in *= 2
    parts = [
        _counted(chunk, cohort, unseen)
        for chunk in reader.rows(
            newest(segments, MAX_SCANNED),
            versions,
            reported=cohort == LABELLED,
            raw_from=raw_from,
            one_in=one_in,
        )
    ]
    if not parts:
        whole, real = np.empty(0, np.int64), np.empty(0, np.float32)
        none = np.empty(0, np.float64)
        return LabelledRows(whole, whole, real, real, np.empty(0, np.int8), none, none)
    return LabelledRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _counted(chunk: DecidedRows, cohort: str, unseen: Collection[int]) -> LabelledRows:
    label = outcomes(cohort, chunk.d, chunk.label, unseen)
    mine = label >= 0
    return LabelledRows(
        chunk.entity[mine],
        chunk.time_ms[mine],
        chunk.raw[mine],
        chunk.score[mine],
        label[mine],
        chunk.weight[mine],
        chunk.amount[mine],
    )
