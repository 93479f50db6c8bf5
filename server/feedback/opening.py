"""Opens feedback as the settings say: the ledger, the store, the threads, quality."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client.metrics_core import Metric

from fastpath.errors import FastpathError
from fastpath.ledger import Ledger
from fastpath.metrics import Metrics
from server.config import Settings
from server.config.feedback import FeedbackSettings
from server.errors import BundleError, ScoregateError
from server.feedback.counts import OutcomeCounts
from server.feedback.deciders import Deciders
from server.feedback.joining import ReportCounts, ReportedOutcome
from server.feedback.keeper import Keeper, Repeating
from server.feedback.metrics import feedback_families
from server.feedback.quality import Evaluator, QualityReport, VersionFacts, bundle_facts
from server.feedback.quality.metrics import families as quality_families
from server.feedback.records import DAY_S, Records
from server.rollout.opening import forgets
from server.rollout.rollout import Rollout

DIRECTORY = "decisions"  # beside the journal
DATABASE = "decisions.db"
MAX_FACTS = 64  # versions whose facts are remembered

log = logging.getLogger(__name__)


class Feedback:
    """Everything of outcomes and quality that the serving process holds.

    Parameters
    ----------
    settings
        Of feedback.
    ledger
        The loops' rings.
    records
        Where decisions are kept; closed by `stop`.
    metrics
        Counts the traffic that rates follow.
    rollout
        What serves.
    """

    def __init__(
        self,
        settings: FeedbackSettings,
        ledger: Ledger,
        records: Records,
        metrics: Metrics,
        rollout: Rollout,
    ) -> None:
        self.ledger = ledger
        self.records = records
        self.outcomes = OutcomeCounts()
        self.evaluator = Evaluator(
            records.path, settings, Facts(rollout, settings.unseen_decisions).find
        )
        self.keeper = Keeper(
            ledger,
            records,
            Deciders(rollout.repository),
            metrics,
            lambda: rollout.served,
            records_per_s=settings.records_per_s,
            drain_s=settings.drain_s,
        )
        # At once, so that the first decisions of a newcomer are recorded, too.
        rollout.listen(lambda _: self.keeper.follow())
        self._evaluating = Repeating(
            lambda: self.evaluator.evaluate(now_ms()), settings.interval_s, "scoregate-quality"
        )

    def start(self) -> None:
        """Record what is decided from now on, and measure."""
        self.keeper.start()
        self._evaluating.start()

    def stop(self) -> None:
        """End, after what was recorded is written; the file is closed."""
        self._evaluating.stop()
        self.keeper.stop()
        self.records.close()

    def report(self, outcomes: Sequence[ReportedOutcome], n_rejected: int = 0) -> ReportCounts:
        """Join outcomes and count what became of them; they are on disk on return.

        Raises
        ------
        FeedbackError
            The disk takes nothing; none of them was taken.
        """
        counts = self.records.report(outcomes, now_ms())
        self.outcomes.take(counts)
        self.outcomes.reject(n_rejected)
        return counts

    def reports(self) -> Sequence[QualityReport]:
        """Return what quality was found last."""
        return self.evaluator.reports

    def families(self) -> Iterator[Metric]:
        """Yield the metric families of feedback and quality."""
        yield from feedback_families(self.ledger, self.keeper, self.records, self.outcomes)
        yield from quality_families(self.evaluator)


class Facts:
    """What must be known of versions to judge them, read once from their bundles.

    Parameters
    ----------
    rollout
        Its thresholds are in force where a version serves.
    unseen_decisions
        Names of decisions after which no outcome can be seen.
    """

    def __init__(self, rollout: Rollout, unseen_decisions: Sequence[str]) -> None:
        self._rollout = rollout
        self._unseen = tuple(unseen_decisions)
        self._known: OrderedDict[tuple[object, ...], VersionFacts | None] = OrderedDict()

    def find(self, model: str, version: str, sha256: str) -> VersionFacts | None:
        """Return what is known of a version; None where its bundle is not there any more."""
        thresholds = None
        for arm in self._rollout.arms:
            if (arm.model, arm.version, arm.sha256.hex()) == (model, version, sha256):
                thresholds = tuple((name, raw) for name, raw, _ in arm.thresholds)
        of = (model, version, sha256, thresholds)
        if of not in self._known:
            self._known[of] = self._read(model, version, sha256, thresholds)
            while len(self._known) > MAX_FACTS:
                self._known.popitem(last=False)
        return self._known[of]

    def _read(
        self,
        model: str,
        version: str,
        sha256: str,
        thresholds: Sequence[tuple[str, float]] | None,
    ) -> VersionFacts | None:
        try:
            bundle = self._rollout.repository.read(model, version)
            if bundle.sha256.hex() != sha256:
                raise BundleError("its bundle was replaced since it decided")
            return bundle_facts(bundle, self._unseen, thresholds=thresholds)
        except (ScoregateError, FastpathError, OSError) as error:
            log.warning("quality of %s %s (%s) is not measured: %s", model, version, sha256, error)
            return None


def open_feedback(settings: Settings, metrics: Metrics, rollout: Rollout) -> Feedback | None:
    """Return feedback, not started; None where it is off, or nothing is to be remembered.

    Raises
    ------
    FeedbackError
        The directory cannot be used, or another process has it.
    """
    given = settings.feedback
    if not given.enabled:
        return None
    if given.directory:
        directory = Path(given.directory)
    elif forgets(settings):
        return None
    else:
        directory = rollout.journal.path.parent / DIRECTORY
    records = Records(
        directory / DATABASE,
        keep_s=given.keep_days * DAY_S,
        keep_bytes=given.keep_bytes,
        segment_s=segment_s(given),
    )
    ledger = Ledger(settings.fast.loops, capacity=given.ring_records)
    return Feedback(given, ledger, records, metrics, rollout)


def segment_s(settings: FeedbackSettings) -> float:
    """Return how long a segment takes decisions: a day, or less where quality looks closer.

    Cohorts are told apart by segments where tallies are enough, and every outcome looks through
    them: a dozenth of the shorter span, and not many more than a few hundred of both.
    """
    shorter = min(settings.maturity_s, settings.window_s) / 12
    fewest = (settings.maturity_s + settings.window_s) / 400
    return min(DAY_S, max(1.0, shorter, fewest))


def now_ms() -> int:
    """Return the time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
