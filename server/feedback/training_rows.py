"""Which rows a model could be trained again on, and whether their outcomes are enough.

Which rows
----------
Decisions that are matured (old enough for silence to mean "negative"), made since the reference was
(what came before was there when the model was trained), without the stretches in which the pipeline
was broken: a model trained on those learns the fault. A stretch begins before it was told of, by as
much as the window holds that it was seen in.

How many positives
------------------
The larger of two, both of time-ordered rows of which the newest quarter validates
(`scoregate export --valid-share`):

* 10 to train on for each feature (P. Peduzzi et al. 1996, "A simulation study of the number of
  events per variable in logistic regression analysis"). A floor, not a goal: flexible models want
  many times that (T. van der Ploeg et al. 2014, "Modern modelling techniques are data hungry");
* 100 to validate on (Y. Vergouwe et al. 2005, "Substantial effective sample sizes were required for
  external validation studies"): a recall of one half is then known to .1 on either side. With
  fewer, nobody could tell whether the new model is better.

Counts are known of whole windows. Where only a part of one is to be taken they are prorated by
time, and said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from server.feedback.quality.reports import MATURED
from server.feedback.told import Event, QualityReport

POSITIVES_PER_FEATURE = 10
POSITIVES_TO_VALIDATE = 100
VALID_SHARE = 0.25  # `scoregate export`'s own
DAY_MS = 86_400_000

Stretch = tuple[int, int]  # milliseconds since the epoch: from, until


class TrainingRows(Struct, frozen=True):
    """Rows to train on; an empty range where there are none."""

    from_time_ms: int = 0
    to_time_ms: int = 0
    without: tuple[Stretch, ...] = ()  # broken stretches within
    n_decisions: int = 0
    n_positive: int = 0
    is_prorated: bool = False  # the counts
    n_positive_needed: int = 0
    positives_per_day: float = 0.0  # as they have matured so far

    @property
    def is_enough(self) -> bool:
        """Whether there are positives enough."""
        return self.n_positive >= self.n_positive_needed

    @property
    def days_missing(self) -> float:
        """Days until there are, at the pace so far; infinite where none came."""
        missing = max(0, self.n_positive_needed - self.n_positive)
        if not missing:
            return 0.0
        return missing / self.positives_per_day if self.positives_per_day > 0 else math.inf


class DriftHistory(NamedTuple):
    """What events tell of one model."""

    broken: tuple[Stretch, ...]  # of any version: they share features
    drifts_since_ms: dict[str, int]  # by version; only those that drift now
    known_from_ms: int = 0  # nothing is told of what was before


def positives_needed(n_features: int) -> int:
    """Return how many positives it takes, to train on and to validate.

    Parameters
    ----------
    n_features
        Of the model; 0: not known.
    """
    to_train = POSITIVES_PER_FEATURE * n_features / (1 - VALID_SHARE)
    return math.ceil(max(to_train, POSITIVES_TO_VALIDATE / VALID_SHARE))


def drift_history(
    events: Iterable[Event], model: str, *, lead_ms: int, known_from_ms: int, now_ms: int
) -> DriftHistory:
    """Return when a model's pipeline was broken, and since when its versions drift.

    Parameters
    ----------
    events
        Of drift, in any order.
    model
        Whose.
    lead_ms
        How long before it was told a fault may have begun: what the fast window spans.
    known_from_ms
        When events begin: with the process.
    now_ms
        A stretch that has not ended ends here.
    """
    broken_since: dict[str, int] = {}
    drifts_since: dict[str, int] = {}
    stretches: list[Stretch] = []
    ours = (one for one in events if one.model == model and one.kind.startswith("drift."))
    for event in sorted(ours, key=lambda one: one.time_ms):
        state = event.kind.removeprefix("drift.")
        if state == "failed":  # the monitor, not what it watches
            continue
        since = broken_since.pop(event.version, None)
        if since is not None:
            stretches.append((since - lead_ms, event.time_ms))
        if state == "broken":
            broken_since[event.version] = event.time_ms
        if state in ("warning", "retrain"):
            drifts_since.setdefault(event.version, event.time_ms)
        else:
            drifts_since.pop(event.version, None)
    stretches += [(since - lead_ms, now_ms) for since in broken_since.values()]
    since_of = {version: since - lead_ms for version, since in drifts_since.items()}
    return DriftHistory(_joined(stretches), since_of, known_from_ms)


def training_rows(
    quality: Iterable[QualityReport],
    model: str,
    *,
    reference_time_ms: int,
    broken: Sequence[Stretch],
    n_features: int,
) -> TrainingRows:
    """Return the rows of a model to train on: of every version and arm, for all saw its traffic.

    Parameters
    ----------
    quality
        Reports of any model and cohort.
    model
        Whose.
    reference_time_ms
        When the reference of the version in question was made; 0: not known.
    broken
        Stretches to leave out, as `drift_history` has them.
    n_features
        Of the model; 0: not known.
    """
    needed = positives_needed(n_features)
    held = [
        one for one in quality if one.model == model and one.cohort == MATURED and one.n_decisions
    ]
    if not held:
        return TrainingRows(n_positive_needed=needed)
    first, last = min(one.from_time_ms for one in held), max(one.to_time_ms for one in held)
    n_positive = sum(one.n_positive for one in held)
    whole_ms = max(1, last - first)
    start = max(first, reference_time_ms)
    if start >= last:
        pace = n_positive / whole_ms * DAY_MS
        return TrainingRows(n_positive_needed=needed, positives_per_day=pace)
    cut = _joined(
        (max(start, since), min(last, until))
        for since, until in broken
        if since < last and until > start
    )
    kept_ms = last - start - sum(until - since for since, until in cut)
    share = min(1.0, max(0.0, kept_ms / whole_ms))
    return TrainingRows(
        from_time_ms=start,
        to_time_ms=last,
        without=cut,
        n_decisions=round(share * sum(one.n_decisions for one in held)),
        n_positive=int(share * n_positive),
        is_prorated=share < 1,
        n_positive_needed=needed,
        positives_per_day=n_positive / whole_ms * DAY_MS,
    )


def _joined(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Return stretches in order, those that touch as one."""
    out: list[Stretch] = []
    for since, until in sorted(stretches):
        if out and since <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], until))
        elif until > since:
            out.append((since, until))
    return tuple(out)
