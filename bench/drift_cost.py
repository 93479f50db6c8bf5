"""What a monitor costs: CPU of observing and evaluating, memory of one with 30 features."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from server.drift import DriftSettings, Monitor, MonitoredFeature, Reference, reference_from_arrays
from server.export.reference import build_reference

N_FEATURES = 30
N_REPETITIONS = 15
START_MS = 1_700_000_000_000
BATCH_ROWS = 500


def make_reference(n_rows: int = 40_000) -> Reference:
    """Return a reference of 30 continuous features: the dearest kind."""
    rng = np.random.default_rng(0)
    features = [MonitoredFeature(name=f"f{j:02d}", stored=j % 2 == 0) for j in range(N_FEATURES)]
    rows = rng.standard_normal((n_rows, N_FEATURES), dtype=np.float32)
    return reference_from_arrays(build_reference(rows, rows[:, 0].copy(), features), features)


def filled(reference: Reference, n_rows: int) -> tuple[Monitor, float]:
    """Return a monitor with full windows, and the CPU microseconds of one row's `observe`."""
    now = [START_MS]
    settings = DriftSettings(n_rows=n_rows)
    monitor = Monitor(reference, reference.features, settings, lambda: now[0])
    rng = np.random.default_rng(1)
    sources = np.ones((BATCH_ROWS, N_FEATURES), np.uint8)
    taken = 0.0
    n_batches = 24 * 60 // 5  # a day, a batch every five minutes
    for _ in range(n_batches):
        now[0] += 300_000
        rows = rng.standard_normal((BATCH_ROWS, N_FEATURES), dtype=np.float32)
        raw = rows[:, 0].copy()
        times = now[0] - 300_000 + np.arange(BATCH_ROWS) * 600
        started = time.process_time()
        monitor.observe(rows, raw, sources, times)
        taken += time.process_time() - started
    return monitor, taken / (n_batches * BATCH_ROWS) * 1e6


def cost() -> dict[str, Any]:
    """Measure; every figure is CPU of one core, which other processes do not change much."""
    reference = make_reference()
    found: dict[str, Any] = {"features": N_FEATURES}
    for n_rows in (2000, 5000):
        monitor, observe_us = filled(reference, n_rows)
        evaluation = monitor.evaluate(force=True)
        if evaluation is None or evaluation.fast.n_rows != n_rows:
            raise RuntimeError(f"the window is not full: {evaluation}")
        found[f"evaluate_ms_{n_rows}"] = _median_ms(partial(monitor.evaluate, force=True))
        found[f"observe_us_per_row_{n_rows}"] = observe_us
        found[f"memory_mb_{n_rows}"] = monitor.n_bytes / 1e6
        kept = monitor.to_bytes()
        found[f"kept_mb_{n_rows}"] = len(kept) / 1e6
        found[f"to_bytes_ms_{n_rows}"] = _median_ms(monitor.to_bytes)
        found[f"restore_ms_{n_rows}"] = _median_ms(partial(monitor.restore, kept))
    return found


def _median_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(N_REPETITIONS):
        started = time.process_time()
        call()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)
