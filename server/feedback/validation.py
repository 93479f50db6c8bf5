"""What a bundle says of its model's quality on validation rows, to hold live quality against.

AUC stands in the manifest. Recall at a threshold is not, because thresholds change; it follows from
two things that the bundle has: the raw scores of the validation rows (`reference.npz`), and the
isotonic regression of their outcomes on it (`calibration.npz`), which gives every block of rows its
own share of positives. So the sum of probabilities over a threshold, by the sum of all, is the
recall of those rows: to within .01, because a threshold may cut a block in two, and a large
reference was thinned to 10,000 order statistics.

Of rows under a second threshold the same sums give the recall among those: what is to be held
against live recall where traffic over that threshold is blocked, and has no outcomes.

Precision and average precision depend on prevalence, which differs between validation and traffic,
so they are not compared. Where the reference was built of other rows (`scoregate reference build`),
there are no recalls, because its rows have no outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from server.bundle.reader import Bundle
from server.drift import load_reference
from server.errors import BundleError
from server.feedback.quality.facts import bundle_facts

Figures = dict[tuple[str, str], float]

AUC = "auc"
RECALL = "recall"


class Validation(Struct, frozen=True):
    """Figures of one version's validation rows."""

    figures: Figures  # (metric, threshold) -> value
    n_positive: int = 0  # that they were taken on
    n_trained_positive: int = 0
    note: str = ""  # what could not be had, and why
    allowed: Figures = {}  # (threshold, blocked from) -> recall of the rest

    def figure(self, name: str, threshold: str = "") -> float:
        """Return one figure; NaN where it is not known."""
        return self.figures.get((name, threshold), math.nan)


def validation_of(bundle: Bundle, thresholds: Mapping[str, float]) -> Validation:
    """Return what a bundle says.

    Parameters
    ----------
    bundle : Bundle
        Verified.
    thresholds : mapping of str to float
        Decision to raw score, as they are in force.
    """
    manifest = bundle.manifest
    figures: Figures = {}
    if manifest.metrics.get(AUC):
        figures[AUC, ""] = manifest.metrics[AUC]
    note = ""
    allowed: Figures = {}
    try:
        recalls, allowed = _recalls(bundle, thresholds)
        figures |= recalls
    except BundleError as error:
        note = f"the recall of its validation rows: {error}"
    return Validation(
        figures=figures,
        allowed=allowed,
        n_positive=manifest.training.n_valid_positive,
        n_trained_positive=manifest.training.n_positive,
        note=note,
    )


def _recalls(bundle: Bundle, thresholds: Mapping[str, float]) -> tuple[Figures, Figures]:
    """Return the recall of all rows, and of those under each threshold."""
    if bundle.manifest.reference:
        raise BundleError(
            f"{bundle.path}: its reference was built of {bundle.manifest.reference}, whose rows "
            "have no outcomes here"
        )
    points = bundle_facts(bundle).calibration
    if points is None:
        raise BundleError(f"{bundle.path}: it is not calibrated")
    raw = load_reference(bundle).values[-1].astype(np.float64)
    positive = np.interp(raw, *points)
    if not positive.sum() > 0:
        raise BundleError(f"{bundle.path}: none of its validation rows is positive")
    recalls = {
        (RECALL, name): float(positive[raw >= cut].sum() / positive.sum())
        for name, cut in thresholds.items()
    }
    allowed = {}
    for blocked, top in thresholds.items():
        under = raw < top
        for name, cut in thresholds.items():
            if cut < top and positive[under].sum() > 0:
                caught = positive[under & (raw >= cut)].sum()
                allowed[name, blocked] = float(caught / positive[under].sum())
    return recalls, allowed
