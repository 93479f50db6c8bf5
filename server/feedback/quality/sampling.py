"""What rows of a cohort tell that its cells cannot, read in bounded number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.bootstrap import MIN_POSITIVE_CARDS, N_REPLICATES, Replicates, resample
from server.feedback.quality.card_precision import DAY_MS, card_precision
from server.feedback.quality.cohorts import Counted, is_explored
from server.feedback.quality.judging import NOTHING_SAMPLED, Judged, Sampled
from server.feedback.quality.reports import MATURED
from server.feedback.quality.rows import MAX_ROWS, MAX_SCANNED, newest, read_rows
from server.feedback.reading import Reader
from server.feedback.segments import Segment

SCORES = 20_000  # for an estimate
ROWS_PER_CARD = 30  # of the most suspicious cards of a day, about the most there are
FEW_DAYS = 3


def sample(
    reader: Reader,
    judged: Judged,
    cohort: str,
    counted: Counted,
    segments: tuple[Segment, ...],
) -> Sampled:
    """Return what rows of a cohort tell."""
    counts = counted.counts
    if not counts.positive.rows.sum():
        return NOTHING_SAMPLED
    rows = read_rows(
        reader, cohort, segments, judged.deciders, judged.unseen, n_used=counted.n_used
    )
    firsts = tuple(first for _, first in judged.cuts(counts))
    spread = resample(rows, judged.edges, firsts)
    share = len(rows.raw) / max(1, counted.n_used)
    if cohort != MATURED or judged.facts is None:
        return Sampled(spread, share)
    return Sampled(
        spread,
        share,
        tuple((k, _of_cards(reader, judged, counted, segments, k)) for k in judged.facts.top_k),
    )


def some_scores(
    reader: Reader, judged: Judged, segments: tuple[Segment, ...]
) -> NDArray[np.float32]:
    """Return raw scores of some decisions that were carried out as they were taken.

    Rows of a segment are in the order of their ids, which are hashes: the first ones are a random
    sample, and the rest need not be read.
    """
    parts = []
    n_rows = 0
    for segment in sorted(segments, reverse=True):
        for chunk in reader.rows([segment], judged.deciders):
            raw = chunk.raw[~is_explored(chunk.d)]
            parts.append(raw)
            n_rows += len(raw)
            if n_rows >= SCORES:
                return np.concatenate(parts)
    return np.concatenate([*parts, np.empty(0, np.float32)])


def _of_cards(
    reader: Reader,
    judged: Judged,
    counted: Counted,
    segments: tuple[Segment, ...],
    k: int,
) -> Replicates:
    """Return card precision over the newest days: all of their rows, or the highest scores."""
    chosen = newest(segments, MAX_SCANNED)
    n_days = (
        max(one.end_ms for one in chosen) // DAY_MS
        - (min(one.start_ms for one in chosen) // DAY_MS)
        + 1
    )
    raw_from = _reach(counted, ROWS_PER_CARD * k * n_days)
    rows = read_rows(
        reader, MATURED, chosen, judged.deciders, judged.unseen, n_used=0, raw_from=raw_from
    )
    day = rows.time_ms // DAY_MS
    mine = np.ones(len(day), np.bool_)
    if len(np.unique(day)) >= FEW_DAYS:  # the first and the last may have begun, or ended, within
        mine = (day > day.min()) & (day < day.max())
    cards_with_fraud = np.unique(rows.entity[mine & (rows.label == 1)])
    return card_precision(
        rows.entity[mine],
        rows.time_ms[mine],
        rows.raw[mine],
        rows.label[mine],
        k,
        n_replicates=N_REPLICATES if len(cards_with_fraud) >= MIN_POSITIVE_CARDS else 0,
        all_from=-math.inf if raw_from is None else raw_from,
    )


def _reach(counted: Counted, n_wanted: int) -> float | None:
    """Return the raw score from which on there are about so many rows; None: all are few enough."""
    if counted.n_used <= MAX_ROWS:
        return None
    known = counted.counts.known.rows
    above = np.cumsum(known[::-1])[::-1][1:]  # from each edge on
    enough = np.flatnonzero((above >= n_wanted) & (above <= MAX_ROWS))
    few = np.flatnonzero(above <= MAX_ROWS)
    if len(enough):
        at = int(enough[-1])
    elif len(few):
        at = int(few[0])
    else:
        at = len(above) - 1
    return float(counted.counts.edges[at])
