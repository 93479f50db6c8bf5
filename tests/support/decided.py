"""Decisions as the ledger drains them, kept in a store, and what is reported of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.capture import id_hash
from fastpath.ledger import DECISION_TYPE, EXPLORED, UNSTICKY
from server.feedback.joining import ReportCounts, ReportedOutcome
from server.feedback.keys import Decider, VersionKey
from server.feedback.records import Records
from tests.support.quality import Scored

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
SHA256 = "ab" * 32


class Decided(NamedTuple):
    """Decisions of one version, and their request ids."""

    rows: Scored
    decisions: NDArray[np.void]
    ids: list[str]

    @property
    def is_explored(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.decisions["flags"] & EXPLORED != 0
        return found


def key(version: str = "1", arm: str = "champion", sha256: str = SHA256) -> VersionKey:
    return VersionKey("fraud", version, sha256, arm)


def decide(
    rows: Scored,
    time_ms: NDArray[np.int64] | int,
    *,
    cuts: tuple[float, ...] = (),
    explore_share: float = 0.0,
    sampling: NDArray[np.float32] | float = 1.0,
    unsticky: bool = False,
    slot: int = 0,
    prefix: str = "",
    seed: int = 0,
) -> Decided:
    """Decide as the engine does: the strictest decision is explored with some probability."""
    random = np.random.default_rng(seed)
    n = len(rows.raw)
    ids = [f"{prefix}{slot}-{i}" for i in range(n)]
    policy = np.searchsorted(np.array(cuts, np.float32), rows.raw, side="right")
    strictest = (policy == len(cuts)) & (policy > 0)
    explored = strictest & (random.random(n) < explore_share)
    found = np.zeros(n, DECISION_TYPE)
    found["id_hash"] = np.array([id_hash(one) for one in ids], np.uint64).reshape(n, 2)
    found["decided_time_ms"] = time_ms
    found["entity_hash"] = rows.entity
    found["raw"] = rows.raw
    found["score"] = rows.score
    found["sampling_probability"] = sampling
    found["propensity"] = np.where(
        strictest, np.where(explored, explore_share, 1 - explore_share), 1
    )
    found["slot"] = slot
    found["policy_decision"] = policy
    found["decision"] = np.where(explored, 0, policy)
    found["flags"] = np.where(explored, EXPLORED, 0) | (UNSTICKY if unsticky else 0)
    return Decided(rows, found, ids)


def keep(
    records: Records, decided: Decided, edges: NDArray[np.float32], who: VersionKey | None = None
) -> None:
    """Keep decisions in the order of their times, day by day, as a server would."""
    decider = Decider(who or key(), edges)
    times = decided.decisions["decided_time_ms"]
    for day in np.unique(times // DAY_MS).tolist():
        records.add(decided.decisions[times // DAY_MS == day], lambda *_: decider)


def report(
    records: Records, decided: Decided, which: NDArray[np.bool_], label: int | None = None
) -> ReportCounts:
    """Report outcomes of some decisions: what they are, or a label for all."""
    outcomes = [
        ReportedOutcome(
            decided.ids[at],
            "fraud",
            int(decided.rows.label[at]) if label is None else label,
            NOW_MS + (label is not None),
            float(decided.rows.amount[at]),
            "chargeback",
        )
        for at in np.flatnonzero(which).tolist()
    ]
    return records.report(outcomes, NOW_MS)


def open_records(folder: Path) -> Records:
    return Records(folder / "decisions.db", keep_s=365 * 86_400.0)
