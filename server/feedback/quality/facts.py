"""What must be known of a version to judge it, beside its decisions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.bundle.manifest import CALIBRATION
from server.bundle.reader import Bundle
from server.errors import BundleError

TOP_K = (100,)


@dataclass(frozen=True)
class VersionFacts:
    """One version's.

    Attributes
    ----------
    thresholds : tuple of (str, float)
        Decision and the raw score from which it is taken, ascending.
    calibration : tuple of two arrays, or None
        Raw scores, strictly ascending, and the probability of a positive at each: linear in
        between, constant outside.
    decisions : tuple of str
        By number: the default one, then those of the thresholds.
    unseen : frozenset of int
        Decisions after which no outcome can be seen.
    top_k : tuple of int
        Cards a day that are looked into: card precision is of these.
    """

    thresholds: tuple[tuple[str, float], ...]
    calibration: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    decisions: tuple[str, ...] = ()
    unseen: frozenset[int] = frozenset()
    top_k: tuple[int, ...] = TOP_K


def bundle_facts(
    bundle: Bundle,
    unseen_decisions: Collection[str] = (),
    *,
    thresholds: Sequence[tuple[str, float]] | None = None,
    top_k: tuple[int, ...] = TOP_K,
) -> VersionFacts:
    """Return what a verified bundle tells.

    Parameters
    ----------
    bundle : Bundle
    unseen_decisions : collection of str
        Names of decisions after which no outcome can be seen; empty: the strictest. A name that no
        decision has stands for nothing, so that ("none",) means: every outcome can be seen.
    thresholds : sequence of (str, float), optional
        Those in force (decision, raw score), where they are not the bundle's.
    top_k : tuple of int
    """
    manifest = bundle.manifest
    if thresholds is None:
        thresholds = [(one.name, one.raw_score) for one in manifest.thresholds]
    decisions = (manifest.default_decision, *(name for name, _ in thresholds))
    if unseen_decisions:
        unseen = {at for at, name in enumerate(decisions) if name in unseen_decisions}
    else:
        unseen = {len(thresholds)} - {0}
    return VersionFacts(
        thresholds=tuple((name, float(raw)) for name, raw in thresholds),
        calibration=_calibration(bundle),
        decisions=decisions,
        unseen=frozenset(unseen),
        top_k=top_k,
    )


def _calibration(bundle: Bundle) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the points of a bundle's calibration; None where it has no usable ones."""
    if bundle.manifest.outputs.score_kind != "probability":
        return None
    try:
        arrays = bundle.arrays(CALIBRATION)
        raw = np.asarray(arrays["raw"], np.float64).ravel()
        probability = np.asarray(arrays["probability"], np.float64).ravel()
    except (BundleError, OSError, KeyError, ValueError):
        return None
    usable = (
        len(raw) == len(probability) > 0
        and bool(np.isfinite(raw).all())
        and bool((np.diff(raw) > 0).all())
        and bool(((probability >= 0) & (probability <= 1)).all())
    )
    return (raw, probability) if usable else None
