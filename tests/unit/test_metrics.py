"""Slots outlive plans, and bad registrations say why."""

from __future__ import annotations

import pytest

from fastpath.errors import FastpathError
from fastpath.metrics import DURATION_BOUNDS_NS, Metrics


def test_a_model_version_keeps_its_slot_for_life() -> None:
    metrics = Metrics(2)
    first = metrics.register("fraud", "1", ["approve", "block"])
    second = metrics.register("fraud", "2", ["approve"])
    assert first != second
    assert metrics.register("fraud", "1", ["approve", "block"]) == first
    snapshot = metrics.snapshot()
    assert [(s.model, s.version) for s in snapshot.slots] == [("fraud", "1"), ("fraud", "2")]
    assert snapshot.slots[0].decisions == {"approve": 0, "block": 0}
    assert len(snapshot.slots[0].duration_buckets) == len(DURATION_BOUNDS_NS) + 1
    assert sum(snapshot.errors) == 0


def test_what_cannot_be_counted_is_refused() -> None:
    metrics = Metrics(1)
    with pytest.raises(FastpathError, match="fraud 1 has 16 thresholds; at most 15"):
        metrics.register("fraud", "1", [str(i) for i in range(17)])
    for version in range(256):
        metrics.register("fraud", str(version), ["approve"])
    with pytest.raises(FastpathError, match="served 256 model versions"):
        metrics.register("fraud", "256", ["approve"])
    with pytest.raises(FastpathError, match="at least one thread, not 0"):
        Metrics(0)
