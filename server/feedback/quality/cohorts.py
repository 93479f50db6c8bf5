"""Which decisions count, and as what.

"matured": decisions old enough that no outcome means a good one; segments count whole, so all of
theirs are. "labelled": only those with a report, however young; frauds are reported sooner and
more often than good payments, so its figures are of what was reported, no more. "estimated": those
that have not matured, without their outcomes.

Of a decision after which no outcome can be seen (a blocked payment), silence says nothing, and it
counts nowhere, whatever is reported of it; the explored ones of its kind stand for it, with their
weights. Where nothing is explored, figures are of the traffic that was allowed. Where the outcome
is seen anyway, what was carried out stands for all of its kind, and the explored count nowhere:
they would stand for the same decisions once more. A report that was taken back leaves a decision
out: something was known of it, and is not now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.ledger import EXPLORED
from server.feedback.keys import Decider
from server.feedback.quality.counts import (
    N_SUMS,
    Float32Array,
    Float64Array,
    ScoreCounts,
    Sums,
    rebinning,
)
from server.feedback.quality.reports import ESTIMATED, MATURED
from server.feedback.reading import RETRACTED, UNKNOWN, Cells
from server.feedback.segments import Segment

_LEFT_OUT = -1
Labels = NDArray[np.int8]


class Ages(NamedTuple):
    """Segments by their age."""

    matured: tuple[Segment, ...]
    young: tuple[Segment, ...]


def by_age(segments: Sequence[Segment], now_ms: int, maturity_s: float, window_s: float) -> Ages:
    """Return the segments all of whose decisions have matured, within the window, and the rest.

    Parameters
    ----------
    segments
        All of them; what is older than the window counts nowhere.
    now_ms
    maturity_s
        Age from which on a decision without an outcome is a good one.
    window_s
        Time before that which counts.
    """
    ripe_ms = now_ms - round(maturity_s * 1000)
    oldest_ms = ripe_ms - round(window_s * 1000)
    held = [one for one in segments if one.n_rows]
    return Ages(
        matured=tuple(s for s in held if oldest_ms < s.end_ms <= ripe_ms),
        young=tuple(s for s in held if s.end_ms > ripe_ms),
    )


def outcomes(
    cohort: str, d: NDArray[np.int64], label: NDArray[np.integer], unseen: Collection[int]
) -> Labels:
    """Return what decisions count as: 0, 1, or -1 where they are in no figure.

    Parameters
    ----------
    cohort
    d : array of int64, shape (n,)
        decision | policy decision << 8 | flags << 16.
    label : array of int, shape (n,)
        UNKNOWN, RETRACTED, 0 or 1.
    unseen
        Decisions after which no outcome can be seen.
    """
    counted = np.where((label == 0) | (label == 1), label, _LEFT_OUT).astype(np.int8)
    if cohort == MATURED:
        counted[label == UNKNOWN] = 0
    elif cohort == ESTIMATED:
        counted[:] = _LEFT_OUT
    counted[label == RETRACTED] = _LEFT_OUT
    counted[is_unseen(d, unseen)] = _LEFT_OUT
    counted[is_explored(d) & ~is_unseen(d >> 8, unseen)] = _LEFT_OUT
    return counted


def is_unseen(d: NDArray[np.int64], unseen: Collection[int]) -> NDArray[np.bool_]:
    """Return which decisions are such that no outcome can be seen."""
    found: NDArray[np.bool_] = np.isin(d & 0xFF, list(unseen))
    return found


def is_explored(d: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which decisions were changed so that an outcome can be seen."""
    found: NDArray[np.bool_] = (d >> 16) & EXPLORED != 0
    return found


class Counted(NamedTuple):
    """A cohort of one version in one arm."""

    counts: ScoreCounts
    n_by_bin: Float64Array  # weights; the explored ones' left out, whose kind the others stand for
    n_decisions: int  # recorded
    n_labels: int  # reported, and not taken back
    n_positive: int
    n_used: int  # in the figures
    n_unseen: int  # of which no outcome can be seen
    n_unseen_labels: int  # reported all the same
    n_explored: int
    n_unexplored: int  # of n_unseen, at least so many while nothing was explored
    n_shared: float  # in bins that a threshold of now cuts


def count_cells(
    cohort: str,
    cells: Cells,
    deciders: Mapping[int, Decider],
    edges: Float32Array,
    unseen: Collection[int],
) -> Counted:
    """Return what cells hold, on common edges.

    Parameters
    ----------
    cohort
    cells
        Of the segments of the cohort; those of other deciders are left alone.
    deciders
        By number: what decided, and its edges.
    edges
        Of the counts that are returned.
    unseen
        Decisions after which no outcome can be seen.
    """
    kinds = np.zeros((4, len(edges) + 1, N_SUMS))  # negative, positive, unknown; all, once
    mine = np.isin(cells.v, list(deciders))
    counted = outcomes(cohort, cells.d, cells.label, unseen)
    used = mine.copy()
    if cohort == ESTIMATED:
        # What was carried out stands, with its weight, for all of its kind: the explored would be
        # counted twice.
        used &= ~is_explored(cells.d)
    n_shared = 0.0
    for v, decider in deciders.items():
        own = used & (cells.v == v)
        if not own.any():
            continue
        table = np.zeros((4, len(decider.edges) + 1, N_SUMS))
        kind = np.where(counted[own] == _LEFT_OUT, 2, counted[own])
        at = np.minimum(cells.bin, len(decider.edges))
        np.add.at(table, (kind, at[own]), cells.sums[own])
        once = own & ~is_explored(cells.d)
        np.add.at(table[3], at[once], cells.sums[once])
        if np.array_equal(decider.edges, edges):
            kinds += table
        else:
            shares = rebinning(decider.edges, edges)
            kinds += np.einsum("ij,kis->kjs", shares, table)
            n_shared += float(table[:3, (shares > 0).sum(axis=1) > 1, 0].sum())
    rows = cells.sums[:, 0]
    reported = mine & ((cells.label == 0) | (cells.label == 1))
    hidden = is_unseen(cells.d, unseen)
    explored = mine & is_explored(cells.d) & is_unseen(cells.d >> 8, unseen)

    def total(which: NDArray[np.bool_]) -> int:
        return round(float(rows[which].sum()))

    return Counted(
        counts=ScoreCounts(edges, Sums(kinds[0]), Sums(kinds[1]), Sums(kinds[2])),
        n_by_bin=Sums(kinds[3]).weight,
        n_decisions=total(mine),
        n_labels=total(reported),
        n_positive=total(reported & (cells.label == 1)),
        n_used=total(mine & (counted != _LEFT_OUT)),
        n_unseen=total(mine & hidden),
        n_unseen_labels=total(reported & hidden),
        n_explored=total(explored),
        n_unexplored=int(cells.certain[mine & hidden].sum()),
        n_shared=n_shared,
    )
