"""Thresholds that an operator sets: scores, turned into the raw scores that decisions compare."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from server.bundle.link import smallest_raw
from server.errors import ChangeError, InputError
from server.rollout.loaded import Loaded
from server.rollout.state import ThresholdState


def threshold_states(
    loaded: Loaded,
    current: tuple[tuple[str, float, float], ...],
    scores: Mapping[str, float],
    where: str,
) -> tuple[ThresholdState, ...]:
    """Return the thresholds of one arm with some of them set anew.

    Parameters
    ----------
    loaded
        The arm's model: its link and prior.
    current
        The thresholds in force: name, raw score, score; ascending.
    scores
        Name -> score; a threshold that is not named stays as it is.
    where
        The arm, for messages.

    Raises
    ------
    ChangeError
        A name is not one of them, a score is no threshold, or they do not ascend.
    """
    outputs = loaded.content.manifest.outputs
    names = [name for name, _, _ in current]
    unknown = [name for name in scores if name not in names]
    if unknown:
        raise ChangeError(
            f"{where} has no threshold {', '.join(unknown)}; it has {', '.join(names) or 'none'}"
        )
    thresholds = []
    for name, raw_score, score in current:
        if name in scores:
            score = scores[name]
            try:
                raw_score = smallest_raw(score, outputs.link, outputs.prior_log_odds_shift, name)
            except InputError as error:
                raise ChangeError(f"{where}: {error}") from None
        thresholds.append(ThresholdState(name, raw_score, score))
    for lower, higher in pairwise(thresholds):
        if not lower.raw_score < higher.raw_score:
            raise ChangeError(
                f"{where}: {lower.name}={lower.score:g} has to be below "
                f"{higher.name}={higher.score:g}"
            )
    return tuple(thresholds)
