"""Rows with scores and outcomes, for tests of quality."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.counts import ScoreCounts, count_rows
from server.feedback.quality.rows import LabelledRows


class Scored(NamedTuple):
    raw: NDArray[np.float32]
    score: NDArray[np.float32]
    label: NDArray[np.int8]
    weight: NDArray[np.float64]
    amount: NDArray[np.float64]
    entity: NDArray[np.int64]

    def part(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Scored:
        return Scored(
            self.raw[which],
            self.score[which],
            self.label[which],
            self.weight[which],
            self.amount[which],
            self.entity[which],
        )

    def counts(self, edges: NDArray[np.float32]) -> ScoreCounts:
        return count_rows(edges, self.raw, self.score, self.label, self.weight, self.amount)

    def rows(self, time_ms: NDArray[np.int64] | None = None) -> LabelledRows:
        times = np.zeros(len(self.raw), np.int64) if time_ms is None else time_ms
        return LabelledRows(
            self.entity, times, self.raw, self.score, self.label, self.weight, self.amount
        )


def sigmoid(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-raw.astype(np.float64)))).astype(np.float32)


def scored(
    seed: int,
    n: int,
    *,
    share: float = 0.05,
    lift: float = 2.0,
    decimals: int | None = None,
    weighted: bool = False,
    n_cards: int | None = None,
) -> Scored:
    """Return rows whose positives score higher; the first two rows are of both kinds."""
    random = np.random.default_rng(seed)
    label = (random.random(n) < share).astype(np.int8)
    label[:2] = [0, 1]
    raw = (random.normal(-3.0, 1.5, n) + lift * label).astype(np.float32)
    if decimals is not None:
        raw = np.round(raw, decimals).astype(np.float32)
    weight = np.where(random.random(n) < 0.3, 10.0, 1.25) if weighted else np.ones(n)
    amount = random.lognormal(3.0, 1.0, n)
    amount[random.random(n) < 0.1] = np.nan
    entity = random.integers(0, n if n_cards is None else n_cards, n)
    return Scored(raw, sigmoid(raw), label, weight, amount, entity)
