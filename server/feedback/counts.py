"""What became of outcomes and decisions since the process began, counted."""

from __future__ import annotations

import threading
from collections import Counter

from server.feedback.joining import ReportCounts

RESULTS = ("matched", "unmatched", "duplicate", "revised", "expired", "rejected")


class OutcomeCounts:
    """Outcomes by what became of them. Safe from any thread.

    Every outcome is counted once when it comes. One that waited and then met its decision is
    counted as matched, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def take(self, counts: ReportCounts) -> None:
        """Count a batch that is on disk."""
        with self._lock:
            self._counts["matched"] += counts.accepted - (
                counts.unmatched + counts.duplicates + counts.revised
            )
            self._counts["unmatched"] += counts.unmatched - counts.expired
            self._counts["duplicate"] += counts.duplicates
            self._counts["revised"] += counts.revised
            self._counts["expired"] += counts.expired

    def reject(self, n: int) -> None:
        """Count outcomes that cannot be used."""
        with self._lock:
            self._counts["rejected"] += n

    def read(self) -> dict[str, int]:
        """Return the counts by result, with zeros."""
        with self._lock:
            return {result: self._counts[result] for result in RESULTS}
