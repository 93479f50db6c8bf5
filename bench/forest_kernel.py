"""One-row time of the forest kernels against ONNX Runtime's C API, in one run, alternating.

Run `python -m bench.forest_kernel [--json FILE]` from the top of the checkout. Every engine
scores the same rows, all different, in one C loop per repetition: one call of `score`, one row at
a time, as the server calls it. The figures are nanoseconds per row (min, median and max of the
repetitions), binning of the features included. Before it times anything it checks that all
engines give the same bits.

The trees are random and their rows too: no branch of an engine can learn its way, so these are
figures for rows that surprise. Both engines find their model in the caches, as a busy server does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.random_forests import Arrays, Builder, onnx_forest, perfect_forest
from fastpath.forest import Forest, available_isas
from fastpath.model import Model
from fastpath.onnx import OnnxModel, library_version

N_FEATURES = 30
SEED = 7


def grown(n_trees: int, n_leaves: int, n_thresholds: int) -> Arrays:
    """Make uneven trees, as leaf-wise boosting and unbounded random forests have."""
    rng = np.random.default_rng(SEED)
    builder = Builder(rng, N_FEATURES, rng.normal(size=n_thresholds).astype(np.float32))
    builder.missing = "false"
    builder.roots = [builder.uneven(n_leaves) for _ in range(n_trees)]
    return builder.arrays(base=0.5)


CASES: dict[str, Callable[[], Arrays]] = {
    "100 trees, depth 3": lambda: perfect_forest(SEED, 100, 3, N_FEATURES, "false"),
    "100 trees, depth 6": lambda: perfect_forest(SEED, 100, 6, N_FEATURES, "false"),
    "200 trees, depth 6": lambda: perfect_forest(SEED, 200, 6, N_FEATURES, "false"),
    "500 trees, depth 8": lambda: perfect_forest(SEED, 500, 8, N_FEATURES, "false"),
    "100 trees, 31 leaves": lambda: grown(100, 31, 6_000),
    "100 trees, 2000 leaves": lambda: grown(100, 2_000, 100_000),
}


def time_row_ns(model: Model, rows: NDArray[np.float32]) -> float:
    """Time one pass over all rows."""
    start_ns = time.perf_counter_ns()
    model.score(rows)
    return (time.perf_counter_ns() - start_ns) / len(rows)


def measure(arrays: Arrays, n_rows: int, repetitions: int) -> dict[str, Any]:
    """Time every engine on one forest, alternating."""
    rows = np.random.default_rng(SEED).normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    forests = {isa: Forest(**arrays, isa=isa) for isa in available_isas()}
    engines: dict[str, Model] = {**forests}
    engines["onnxruntime"] = OnnxModel(onnx_forest(arrays), n_features=N_FEATURES)
    expected = engines["onnxruntime"].score(rows)
    for name, engine in engines.items():
        if not np.array_equal(engine.score(rows).view(np.uint32), expected.view(np.uint32)):
            sys.exit(f"{name} and onnxruntime disagree: nothing was measured")
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repetitions):
        for name, engine in engines.items():
            times[name].append(time_row_ns(engine, rows))
    best = forests[available_isas()[-1]]
    return {
        "layout": best.layout,
        "max_depth": best.max_depth,
        "resident_bytes": best.resident_bytes,
        "row_ns": {
            name: {"min": min(t), "median": statistics.median(t), "max": max(t)}
            for name, t in times.items()
        },
        "ort_ratio": statistics.median(times["onnxruntime"]) / statistics.median(times[best.isa]),
    }


def machine() -> dict[str, Any]:
    """Name the processor and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": library_version(),
        "isas": list(available_isas()),
    }


def main() -> None:
    """Measure every case, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--rows", type=int, default=5_000, help="different rows (default 5000)")
    parser.add_argument("--repetitions", type=int, default=7, help="passes (default 7)")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name, make in CASES.items():
        result = results[name] = measure(make(), arguments.rows, arguments.repetitions)
        medians = ", ".join(f"{k} {v['median']:,.0f} ns" for k, v in result["row_ns"].items())
        print(
            f"{name} ({result['layout']}): {medians}; {result['ort_ratio']:.1f} times", flush=True
        )
    report = {"machine": machine(), "rows": arguments.rows, "repetitions": arguments.repetitions}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**report, "cases": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
