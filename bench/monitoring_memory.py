"""The memory of a monitor, seen from outside: `python -m bench.monitoring_memory BUNDLE`.

A process of its own reads a bundle's reference, fills the windows of a monitor with a day and
evaluates them, and prints by how much its resident set grew, as JSON: after `malloc_trim`, what
stays, and at the highest, what the work on it takes besides. Everything that is imported once,
whatever the number of monitors, was there before: another monitor was filled and dropped.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.drift_cost import BATCH_ROWS, START_MS
from bench.errors import BenchError
from server.bundle import read_bundle
from server.drift import DriftSettings, Monitor, load_reference
from server.memory import resident_bytes, trim

N_ROWS = 5000  # of the fast window
STEP_MS = 300_000
N_STEPS = 24 * 60 // 5


def measure(bundle: Path) -> dict[str, float]:
    """Measure in another process.

    Raises
    ------
    BenchError
        It failed.
    """
    command = [sys.executable, "-m", "bench.monitoring_memory", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def filled(bundle: Path) -> Monitor:
    """Return a monitor of a bundle that has seen a day, and has said what it thinks of it."""
    now = [START_MS]
    reference = load_reference(read_bundle(bundle))
    settings = DriftSettings(n_rows=N_ROWS)
    monitor = Monitor(reference, reference.features, settings, lambda: now[0])
    rng = np.random.default_rng(1)
    n_features = len(reference.features)
    sources = np.ones((BATCH_ROWS, n_features), np.uint8)
    for _ in range(N_STEPS):
        now[0] += STEP_MS
        rows = rng.standard_normal((BATCH_ROWS, n_features), dtype=np.float32)
        times = now[0] - STEP_MS + np.arange(BATCH_ROWS) * (STEP_MS // BATCH_ROWS)
        monitor.observe(rows, rows[:, 0].copy(), sources, times)
    monitor.evaluate(force=True)
    return monitor


def main(bundle: Path) -> dict[str, float]:
    """Measure in this process."""
    filled(bundle)
    before = _settled()
    # Of Linux: the highest resident set counts from here on (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    monitor = filled(bundle)
    kept = len(monitor.to_bytes())
    highest = _highest_bytes()
    after = _settled()
    return {
        "resident_bytes": after - before,
        "highest_bytes": highest - before,
        "counted_bytes": monitor.n_bytes,
        "kept_bytes": kept,
    }


def _settled() -> int:
    gc.collect()
    trim()
    return resident_bytes()


def _highest_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
