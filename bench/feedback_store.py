"""The store of decisions on its own: `python -m bench.feedback_store WHAT DIRECTORY N`.

`join` keeps N decisions as they leave the loops' rings, reports an outcome of every one, in an
order that has nothing to do with theirs, and then all of the first tenth again; it prints as JSON
how fast that was, how many met their decision, and what the files take with every label in them.

`segments` does the same with decisions that are spread over 25 segments, as those of 25 days are,
and with as many outcomes of requests that were never recorded.

`delays` keeps decisions batch by batch and reports each batch's outcomes later and later: at once,
then up to half of all decisions behind. Of a tenth of them nothing is ever heard, and a tenth of
the reports is of requests that nobody decided. It prints the resident set after each delay.

A process of its own, on the servers' core: nothing else is in its memory or its time.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.processes import SERVER_CORE
from fastpath.capture import id_hash
from fastpath.ledger import DECISION_TYPE
from server.feedback.joining import ReportedOutcome
from server.feedback.keys import Decider, VersionKey
from server.feedback.records import Records
from server.memory import resident_bytes, trim

KEPT_AT_ONCE = 10_000  # half a second of 20,000 calls a second
REPORTED_AT_ONCE = 5_000
POSITIVE_SHARE = 0.01
N_SEGMENTS = 25
UNKNOWN = 1 << 40  # from this number on, requests were never decided
N_EDGES = 300  # of a version's bins, as its reference gives them
DELAYS = (0.0, 0.05, 0.15, 0.5)  # in shares of all decisions
START_MS = 1_790_000_000_000
CALLS_PER_MS = 20
DECIDER = Decider(
    VersionKey("bench", "1", "0" * 64, "champion"),
    np.linspace(-8, 8, N_EDGES, dtype=np.float32),
)


def measure(what: str, folder: Path, n: int) -> dict[str, Any]:
    """Measure in another process.

    Parameters
    ----------
    what : str
        "join", "segments" or "delays".
    folder : Path
        For the store; emptied before and after.
    n : int
        Decisions.

    Raises
    ------
    BenchError
        It failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    own = [sys.executable, "-m", "bench.feedback_store", what, str(folder), str(n)]
    command = ["taskset", "-c", SERVER_CORE, *own]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise BenchError(f"{' '.join(own)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def request_id(i: int) -> str:
    """Return the id of a decision, as long as those of UUIDs."""
    return f"0190b0a6-5f2e-7c3a-9d41-{i:012x}"


def decisions(first: int, n: int) -> NDArray[np.void]:
    """Return decisions as a loop's ring has them, one in a hundred of them flagged."""
    rng = np.random.default_rng(first)
    rows = np.zeros(n, DECISION_TYPE)
    rows["id_hash"] = [id_hash(request_id(i)) for i in range(first, first + n)]
    rows["decided_time_ms"] = START_MS + np.arange(first, first + n) // CALLS_PER_MS
    rows["entity_hash"] = rng.integers(0, 1 << 63, n, np.uint64)
    rows["raw"] = rng.normal(-4, 2, n)
    rows["score"] = 1 / (1 + np.exp(-rows["raw"]))
    rows["decision"] = rows["policy_decision"] = rng.random(n) < 0.01
    rows["sampling_probability"] = rows["propensity"] = 1.0
    return rows


def outcomes(numbers: NDArray[np.int64], *, positive_share: float) -> list[ReportedOutcome]:
    """Return an outcome of each decision, by number; the same every time."""
    return [
        ReportedOutcome(
            request_id(i),
            "",
            int(i % 1000 < positive_share * 1000),
            START_MS + 86_400_000,
            float(i % 500),
            "chargeback",
        )
        for i in numbers.tolist()
    ]


def join(folder: Path, n: int) -> dict[str, Any]:
    """Keep decisions, then report an outcome of each."""
    store = Records(folder / "decisions.db")
    found = _keep(store, n)
    order = np.random.default_rng(7).permutation(n)
    found |= _report(store, order, "joined")
    found["repeated_per_s"] = _report(store, order[: n // 10], "repeated")["repeated_per_s"]
    store.close()
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return found | {"bytes": n_bytes, "bytes_per_million": n_bytes / n * 1e6}


def segments(folder: Path, n: int) -> dict[str, Any]:
    """Keep decisions in many segments, then report of each, and of as many that are in none."""
    span_s = n / CALLS_PER_MS / 1000
    store = Records(folder / "decisions.db", segment_s=span_s / N_SEGMENTS)
    found = _keep(store, n) | {"segments": store.stats().n_segments}
    order = np.random.default_rng(7).permutation(2 * n)
    found |= _report(store, np.where(order < n, order, order + UNKNOWN), "joined")
    store.close()
    return found


def _keep(store: Records, n: int) -> dict[str, Any]:
    kept, times_ms = 0, []
    for first in range(0, n, KEPT_AT_ONCE):
        rows = decisions(first, min(KEPT_AT_ONCE, n - first))
        started = time.perf_counter()
        kept += store.add(rows, lambda *_: DECIDER).n_kept
        times_ms.append((time.perf_counter() - started) * 1e3)
    return {
        "kept_share": kept / n,
        "kept_per_s": n / (sum(times_ms) / 1e3),
        "kept_batch_max_ms": max(times_ms),
    }


def _report(store: Records, order: NDArray[np.int64], name: str) -> dict[str, Any]:
    unmatched, times_ms = 0, []
    for at in range(0, len(order), REPORTED_AT_ONCE):
        batch = outcomes(order[at : at + REPORTED_AT_ONCE], positive_share=POSITIVE_SHARE)
        started = time.perf_counter()
        counts = store.report(batch, START_MS + 2 * 86_400_000)
        times_ms.append((time.perf_counter() - started) * 1e3)
        unmatched += counts.unmatched
    return {
        f"{name}_per_s": len(order) / (sum(times_ms) / 1e3),
        f"{name}_matched_share": 1 - unmatched / len(order),
        f"{name}_batch_p50_ms": float(np.median(times_ms)),
        f"{name}_batch_max_ms": max(times_ms),
    }


def delays(folder: Path, n: int) -> dict[str, Any]:
    """Keep decisions, and report their outcomes later and later."""
    # A file that has to make room meanwhile, so that outcomes are late for some, too.
    store = Records(folder / "decisions.db", keep_bytes=16 << 20, max_waiting=n // 10)
    _delayed(store, range(0, KEPT_AT_ONCE, KEPT_AT_ONCE), 0)  # what is imported and cached once
    resident, first = {}, KEPT_AT_ONCE
    for delay in DELAYS:
        behind = round(delay * n / KEPT_AT_ONCE) * KEPT_AT_ONCE
        _delayed(store, range(first, first + n, KEPT_AT_ONCE), behind)
        first += n
        gc.collect()
        trim()
        resident[f"{delay:g}"] = resident_bytes()
    stats = store.stats()
    store.close()
    return {
        "resident_bytes": resident,
        "growth_bytes": max(resident.values()) - resident[f"{DELAYS[0]:g}"],
        "held": stats.n_decisions,
        "waiting": stats.n_waiting,
    }


def _delayed(store: Records, firsts: range | Iterator[int], behind: int) -> None:
    for first in firsts:
        store.add(decisions(first, KEPT_AT_ONCE), lambda *_: DECIDER)
        if first < behind:
            continue
        numbers = np.arange(first - behind, first - behind + KEPT_AT_ONCE)
        numbers = numbers[numbers % 10 != 0]
        unknown = numbers[numbers % 10 == 1] + UNKNOWN
        for at in range(0, len(numbers), REPORTED_AT_ONCE):
            batch = outcomes(numbers[at : at + REPORTED_AT_ONCE], positive_share=POSITIVE_SHARE)
            store.report(batch, START_MS + first // CALLS_PER_MS)
        store.report(outcomes(unknown, positive_share=1.0), START_MS + first // CALLS_PER_MS)


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure in this process, as the command line says.

    Raises
    ------
    BenchError
        It says something else.
    """
    try:
        what, folder, n = arguments
        kinds = {"join": join, "segments": segments, "delays": delays}
        return kinds[what](Path(folder), int(n))
    except (KeyError, ValueError) as error:
        raise BenchError(f"join|segments|delays DIRECTORY N, not {arguments}: {error}") from None


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
