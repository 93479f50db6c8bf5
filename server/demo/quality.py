"""How well scores rank frauds above the rest: AUC and average precision, without scikit-learn.

The replaying client computes them while it replays, and must start without scikit-learn. Both are
defined over the distinct scores, so that equal scores are no better in one order than in another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def ranking_quality(
    fraud: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Return "auc" and "average_precision"; nothing where either kind of row is absent.

    Parameters
    ----------
    fraud : bool [n]
    score : float32 [n]
        Not NaN; higher is more suspicious.
    """
    n_frauds = int(np.count_nonzero(fraud))
    n_others = len(fraud) - n_frauds
    if not n_frauds or not n_others:
        return {}
    order = np.argsort(score)[::-1]
    ranked = score[order]
    # The last row of every run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    caught = np.cumsum(fraud[order], dtype=np.float64)[ends]
    flagged = ends + 1.0
    alarms = flagged - caught
    recall = np.append(0.0, caught / n_frauds)
    false_rate = np.append(0.0, alarms / n_others)
    return {
        "auc": float(np.sum(np.diff(false_rate) * (recall[1:] + recall[:-1]) / 2)),
        "average_precision": float(np.sum(np.diff(recall) * caught / flagged)),
    }
