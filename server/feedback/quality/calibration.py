"""What scores promised and what came, by group of neighbouring bins, each share with its interval.

The groups are those of the calibration error. A share of rows with weights is worth as many rows
as `trials` says: explored decisions all lie in the last groups, so that one number for the whole
report would make their intervals far too narrow.
"""

from __future__ import annotations

import numpy as np

from server.feedback.quality.counts import ScoreCounts
from server.feedback.quality.from_bins import calibration_groups
from server.feedback.quality.intervals import wilson
from server.feedback.quality.reports import CalibrationGroup
from server.feedback.quality.trials import share_trials


def calibration(counts: ScoreCounts) -> tuple[CalibrationGroup, ...]:
    """Return the groups that hold a known outcome, ascending; none where only positives are known.

    Parameters
    ----------
    counts
        Of a cohort whose outcomes are known.
    """
    negative, positive = counts.negative, counts.positive
    if not negative.rows.sum():
        return ()
    group = calibration_groups(negative, positive)
    found = []
    for one in np.unique(group):
        mine = group == one
        (part, part2, part_score), (rest, rest2, rest_score) = (
            (
                float(sums.weight[mine].sum()),
                float(sums.weight2[mine].sum()),
                float(sums.score[mine].sum()),
            )
            for sums in (positive, negative)
        )
        whole = part + rest
        if not whole > 0:
            continue
        n = share_trials(part, part2, rest, rest2)
        share = part / whole
        low, high = wilson(share, n)
        mean_score = (part_score + rest_score) / whole
        found.append(CalibrationGroup(mean_score, share, low, high, n))
    return tuple(found)
