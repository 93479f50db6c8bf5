"""The monitor of one served version: rows in, evaluations out.

Theory of operation. A background thread hands it sampled rows (`observe`), asks it now and then for
an evaluation (`evaluate`), and keeps what it has counted across restarts (`to_bytes`, `restore`).
`evaluation` may be read from any thread at any time; it is replaced whole.

Time is the rows' event time, made monotone: the watermark is the newest time believed. A row from
before it counts as of the watermark; a row from further ahead of the clock than `max_ahead_s`
counts as of the clock. A whole batch far behind the watermark means that time went back (a clock
was set, a stream is replayed): the windows go on from there, and what they hold is moved to no
later than that, so no span is ever negative. A leap ahead ages what the windows hold, as if no
traffic had come in between.

With no traffic nothing ages: windows are as old as their rows, not as the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from server.drift import snapshot
from server.drift.columns import Columns, Float32Array
from server.drift.comparison import compare, overall
from server.drift.counted import count_rows
from server.drift.evaluation import Comparison, Evaluation, WindowReport
from server.drift.fast import FastWindow
from server.drift.histograms import Histogram, histograms
from server.drift.reference import Reference
from server.drift.settings import DriftSettings, MonitoredFeature, n_tests
from server.drift.slow import SlowWindow
from server.drift.states import Machine, Observed, State, advance
from server.drift.verdict import agree, warming, why
from server.errors import BundleError


class Monitor:
    """Watches one version's rows.

    Parameters
    ----------
    reference : Reference
    features : sequence of MonitoredFeature
        Of the schema that is served; must be the reference's.
    settings : DriftSettings
    clock : callable
        Returns milliseconds since the epoch.

    Raises
    ------
    BundleError
        The reference is of other features.
    """

    def __init__(
        self,
        reference: Reference,
        features: Sequence[MonitoredFeature],
        settings: DriftSettings,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        _check(reference, features)
        self.reference = reference
        self.settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._columns: Columns = reference.columns
        self._calendar = tuple(reference.hours)
        self._span_ms = round(settings.slow_span_s * 1000)
        self._fast = FastWindow(
            self._columns.n_columns,
            self._columns.n_features,
            settings.n_rows,
            round(settings.min_span_s * 1000),
        )
        self._slow = SlowWindow(self._columns, self._span_ms, round(settings.pane_s * 1000))
        self._machine = Machine()
        self._watermark_ms = -1
        self._evaluated_ms: int | None = None
        self._evaluation: Evaluation | None = None
        self.n_observed = 0
        self.n_late = 0  # rows from before the watermark
        self.n_ahead = 0  # rows from ahead of the clock
        self.n_rebased = 0  # how often time went back

    @property
    def evaluation(self) -> Evaluation | None:
        """Return the last evaluation."""
        return self._evaluation

    @property
    def state(self) -> State:
        """Return the state as of the last evaluation."""
        return self._machine.state

    @property
    def n_bytes(self) -> int:
        """Return the memory of the windows and the reference, every pane filled."""
        reference = sum(v.nbytes for v in self.reference.values) + self.reference.counts.nbytes
        hours = sum(table.nbytes for table in self.reference.hours.values())
        return self._fast.n_bytes + self._slow.n_bytes + reference + hours

    def observe(
        self,
        rows: Float32Array,
        raw: Float32Array,
        sources: NDArray[np.uint8] | None,
        time_ms: NDArray[np.int64],
    ) -> None:
        """Take rows in.

        Parameters
        ----------
        rows : array of float32, shape (n, n_features)
            Resolved rows, defaults filled in.
        raw : array of float32, shape (n,)
            Raw scores.
        sources : array of uint8, shape (n, n_features), or None
            scoregate.v1.FeatureSource of each value, or 5: a default for an unseen category.
        time_ms : array of int64, shape (n,)
            Event times since the epoch; 0 or less: now.
        """
        shape = (len(raw), self._columns.n_features)
        wrong = sources is not None and sources.shape != shape
        if rows.shape != shape or time_ms.shape != raw.shape or wrong:
            raise ValueError(f"rows {rows.shape}, raw {raw.shape}: {shape} rows are needed")
        if not len(raw):
            return
        values, fallback = self._columns.tidy(rows, raw, sources)
        with self._lock:
            times = self._monotone(np.asarray(time_ms, np.int64))
            # Both windows want rows in order; rows of one time keep theirs.
            self._fast.add(values, fallback, times)
            self._slow.add(values, fallback, times)
            self._fast.forget_before(self._watermark_ms - self._span_ms)
            self.n_observed += len(raw)

    def _monotone(self, time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        now = self._clock()
        times = np.where(time_ms > 0, time_ms, now)
        ahead = times > now + round(self.settings.max_ahead_s * 1000)
        self.n_ahead += int(ahead.sum())
        times[ahead] = now
        newest = int(times.max())
        if newest < self._watermark_ms - round(self.settings.max_back_s * 1000):
            self.n_rebased += 1
            self._watermark_ms = int(times.min())
            self._fast.rebase(self._watermark_ms)
            self._slow.rebase(self._watermark_ms)
        self.n_late += int((times < self._watermark_ms).sum())
        times[0] = max(int(times[0]), self._watermark_ms)
        times = np.maximum.accumulate(times)
        self._watermark_ms = int(times[-1])
        return times

    def evaluate(self, now_ms: int | None = None, *, force: bool = False) -> Evaluation | None:
        """Compare the windows with the reference and move on to the next state.

        Parameters
        ----------
        now_ms : int or None
            None: the clock's.
        force : bool
            Evaluate although `interval_s` has not passed since the last time.

        Returns
        -------
        Evaluation or None
            None: not due.
        """
        now = self._clock() if now_ms is None else now_ms
        with self._lock:
            last = self._evaluated_ms
            interval_ms = self.settings.interval_s * 1000
            # A clock that went back makes the last time lie ahead: then it is due.
            if not force and last is not None and 0 <= now - last < interval_ms:
                return None
            self._evaluated_ms = now
            started = time.perf_counter()
            self._evaluation = self._evaluate(now, started)
            return self._evaluation

    def _evaluate(self, now_ms: int, started: float) -> Evaluation:
        settings = self.settings
        span_s = self._fast.span_ms / 1000
        is_ready = self._fast.n_rows >= settings.min_rows and span_s >= settings.min_span_s
        fast = WindowReport(n_rows=self._fast.n_rows, span_s=span_s, is_ready=is_ready)
        slow = WindowReport(
            n_rows=self._slow.n_rows,
            span_s=self._slow.span_ms / 1000,
            is_ready=self._slow.is_full and self._slow.n_rows >= settings.min_rows,
        )
        if not is_ready:
            self._machine = advance(self._machine, Observed(is_ready=False), settings)
            return warming(now_ms, fast, slow, settings, time.perf_counter() - started)
        found = self._compare_fast()
        day = self._compare_slow() if slow.n_rows else found
        score = overall(found, settings)
        agrees = slow.is_ready and agree(found, day, settings)
        self._machine = advance(
            self._machine,
            Observed(
                is_ready=True,
                is_broken=bool(found.broken),
                score=score,
                slow_agrees=agrees,
                first_row=self._fast.first_row,
                end_row=self._fast.n_appended,
            ),
            settings,
        )
        return Evaluation(
            time_ms=now_ms,
            state=self._machine.state,
            score=score,
            mean=found.mean,
            drifted_share=found.drifted_share,
            raw_score_drift=found.raw_score.score,
            features=found.features,
            raw_score=found.raw_score,
            fast=WindowReport(
                n_rows=fast.n_rows, span_s=fast.span_s, is_ready=True, score=found.largest
            ),
            slow=WindowReport(
                n_rows=slow.n_rows,
                span_s=slow.span_s,
                is_ready=slow.is_ready,
                score=overall(day, settings),
            ),
            slow_features=day.features,
            reasons=why(found, settings, slow_ready=slow.is_ready, agrees=agrees),
            n_tests=n_tests(self.reference.features),
            alpha=settings.alpha,
            duration_s=time.perf_counter() - started,
        )

    def _compare_fast(self) -> Comparison:
        found = count_rows(self._columns, self._calendar, *self._fast.rows())
        return compare(
            self.reference, found.counts, self.settings, values=found.values, hours=found.hours
        )

    def _compare_slow(self) -> Comparison:
        hours = {j: self._slow.by_hour(j) for j in self._calendar}
        return compare(self.reference, self._slow.total, self.settings, hours=hours)

    def histograms(self) -> tuple[Histogram, ...]:
        """Return a histogram per feature and, at the end, of the raw score, as of now.

        From any thread: the lock is held while the windows are copied, not while they are counted.
        """
        with self._lock:
            rows = self._fast.rows()
            slow = self._slow.total.copy()
        found = count_rows(self._columns, self._calendar, *rows)
        return histograms(self.reference, found.counts, slow, found.hours)

    def to_bytes(self) -> bytes:
        """Return both windows, the state and the reference's digest, for `restore`."""
        with self._lock:
            return snapshot.pack(
                self.reference.digest,
                self._columns,
                round(self.settings.pane_s * 1000),
                self._watermark_ms,
                self._machine,
                {**self._fast.dump(), **self._slow.dump()},
            )

    def restore(self, data: bytes) -> None:
        """Take up what `to_bytes` returned, instead of what is held.

        Raises
        ------
        InputError
            Damaged, of another reference, or of panes of another length; nothing is changed.
        """
        pane_ms = round(self.settings.pane_s * 1000)
        kept = snapshot.unpack(data, self.reference.digest, self._columns, pane_ms)
        with self._lock:
            self._fast.load(kept.arrays)
            self._slow.load(kept.arrays)
            self._machine = kept.machine
            self._watermark_ms = kept.watermark_ms


def _check(reference: Reference, features: Sequence[MonitoredFeature]) -> None:
    ours = [(f.name, f.type) for f in features]
    theirs = [(f.name, f.type) for f in reference.features]
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        what = f"it is of {len(theirs)} features, the schema has {len(ours)}"
    else:
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        what = (
            f"feature {at} is {theirs[at][0]!r} ({theirs[at][1]}) there and {ours[at][0]!r} "
            f"({ours[at][1]}) in the schema"
        )
    raise BundleError(f"the drift reference is of another schema: {what}; build one for this model")
