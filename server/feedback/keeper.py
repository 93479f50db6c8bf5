"""The background work of feedback: drain the ledger, write decisions down, follow the traffic.

Rules
-----
* One nice thread drains and writes, another measures quality. Neither can fail a call.
* A disk that takes nothing costs decisions, which are counted; it is told once, and once when it
  works again. Nothing is kept in memory for it: rings and memory stay bounded.
* At the end the ledger is drained once more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastpath.ledger import DECISION_TYPE, Ledger
from fastpath.metrics import Metrics
from server.errors import FeedbackError
from server.feedback.deciders import Deciders
from server.feedback.rates import RecordRates
from server.feedback.records import Records
from server.priority import be_nice
from server.rollout.plans import Served

AT_ONCE = 8192  # decisions that are taken of each ring and written in one transaction
MEASURE_S = 1.0  # that traffic is measured over, at least

log = logging.getLogger(__name__)

NOTHING = np.empty(0, DECISION_TYPE)


class Keeper:
    """Moves decisions from the ledger's rings to disk.

    Parameters
    ----------
    ledger
        The loops' rings.
    records
        Where decisions are kept.
    deciders
        Who decided; it learns of plans here, and from whoever changes them.
    metrics
        Counts the traffic that rates follow.
    served
        Returns the plan in force; None: nothing is.
    records_per_s
        Decisions a second to record of each version.
    drain_s
        Seconds between two looks at the rings.
    """

    def __init__(
        self,
        ledger: Ledger,
        records: Records,
        deciders: Deciders,
        metrics: Metrics,
        served: Callable[[], Served | None],
        *,
        records_per_s: float,
        drain_s: float,
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._deciders = deciders
        self._metrics = metrics
        self._served = served
        self._drain_s = drain_s
        self._rates = RecordRates(records_per_s)
        self._set: dict[int, tuple[float, float]] = {}  # slot -> share, always from
        self._following = threading.Lock()
        self._early: NDArray[np.void] = NOTHING  # of plans that are not known yet
        self._measured_s = 0.0
        self._is_failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scoregate-records", daemon=True)
        self.n_recorded = 0
        self.n_dropped_disk = 0
        self.n_dropped_unknown = 0  # nobody knows who decided
        self.shares: dict[tuple[str, str], float] = {}  # (model, version) -> share recorded

    def start(self) -> None:
        """Begin; what serves is recorded from now on."""
        self.follow()
        self._thread.start()

    def stop(self) -> None:
        """End, after what was recorded is written."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self, *, is_last: bool = False) -> None:
        """Write what was recorded, and follow the plan and its traffic."""
        early, self._early = self._early, NOTHING
        # No more than rings can hold: calls that go on must not keep a last look from its end.
        for _ in range(-(-self._ledger.capacity // AT_ONCE)):
            # In parts: what is not taken stays in the rings, which thin themselves as they fill,
            # and shares follow traffic that has just begun.
            drained = self._ledger.drain(AT_ONCE)
            self.follow(is_measured=True)
            known = drained if is_last else self._hold_early(drained)
            self._write(np.concatenate([early, known]) if len(early) else known)
            early = NOTHING
            if len(drained) < AT_ONCE:
                return

    def _run(self) -> None:
        be_nice()
        while not self._stopping.wait(self._drain_s):
            self._look()
        self._look(is_last=True)

    def _look(self, *, is_last: bool = False) -> None:
        try:
            self.look(is_last=is_last)
        except Exception:
            log.exception("decisions could not be looked at; the next look may succeed")

    def _hold_early(self, decisions: NDArray[np.void]) -> NDArray[np.void]:
        """Return decisions of known plans; those of a plan yet to be seen wait for one look."""
        generations = np.unique(decisions["generation"])
        served = self._served()
        newest = 0 if served is None else served.state.generation
        early = [g for g in generations.tolist() if g > newest and not self._deciders.knows(g)]
        if not early:
            return decisions
        waits = np.isin(decisions["generation"], np.array(early, np.uint64))
        self._early = np.concatenate([self._early, decisions[waits]])
        return decisions[~waits]

    def _write(self, decisions: NDArray[np.void]) -> None:
        try:
            kept = self._records.add(decisions, self._deciders.find)
        except FeedbackError as error:
            self.n_dropped_disk += len(decisions)
            if not self._is_failing:
                self._is_failing = True
                log.warning("decisions are not recorded until this ends: %s", error)
            return
        self.n_recorded += kept.n_kept
        self.n_dropped_unknown += kept.n_unknown
        if self._is_failing:
            self._is_failing = False
            log.warning("decisions are recorded again; %d are missing", self.n_dropped_disk)

    def follow(self, *, is_measured: bool = False) -> None:
        """Learn the plan in force, and set what of each version is recorded. From any thread.

        Parameters
        ----------
        is_measured
            Whether traffic is measured, too; else a version keeps its share.
        """
        with self._following:
            self._follow(is_measured=is_measured)

    def _follow(self, *, is_measured: bool) -> None:
        served = self._served()
        if served is None:
            return
        now_s = time.monotonic()
        elapsed_s = now_s - self._measured_s if self._measured_s else MEASURE_S
        # A burst that is shorter is recorded whole: rings have room for it.
        is_measured = is_measured and elapsed_s >= MEASURE_S
        arms = served.arms
        if not self._deciders.knows(served.state.generation):
            self._deciders.remember(served.state.generation, arms)
        counted = {(slot.model, slot.version): slot for slot in self._metrics.snapshot().slots}
        slots = {arm.loaded.slot: arm for arm in arms}
        counts = {
            slot: counted[arm.model, arm.version].predictions
            for slot, arm in slots.items()
            if (arm.model, arm.version) in counted
        }
        if is_measured:
            self._measured_s = now_s
            shares = self._rates.shares(counts, elapsed_s)
        else:
            shares = {slot: self._set.get(slot, (1.0, 0.0))[0] for slot in counts}
        for slot in self._set.keys() - shares.keys():
            self._ledger.set_rate(slot, 0.0)
            del self._set[slot]
        for slot, share in shares.items():
            thresholds = slots[slot].thresholds
            wanted = (share, thresholds[0][1] if thresholds else float("nan"))
            if repr(self._set.get(slot)) != repr(wanted):  # NaN is not itself
                self._set[slot] = wanted
                self._ledger.set_rate(slot, *wanted)
        self.shares = {
            (slots[slot].model, slots[slot].version): share for slot, share in shares.items()
        }


class Repeating:
    """Does something again and again on a nice thread.

    Parameters
    ----------
    work
        What; it may raise, which is logged.
    interval_s
        Between the end of one time and the next.
    name
        Of the thread.
    """

    def __init__(self, work: Callable[[], object], interval_s: float, name: str) -> None:
        self._work = work
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after what runs now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        be_nice()
        while not self._stopping.wait(self._interval_s):
            try:
                self._work()
            except Exception:
                log.exception("%s: failed; the next time may succeed", self._thread.name)
