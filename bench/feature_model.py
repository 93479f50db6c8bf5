"""The model of the features benchmark, and its requests: with stored features, and dense.

Rules: 15 features in the fraud handbook's shape: 3 come with the request, 6 from the customer's
record, 6 from the terminal's (`feature_store_data`). A stored request holds the 3 and names both
entities; a dense one holds all 15 and names the same entities, so the two ask for the same score.
What an answer has to be is stock onnxruntime's raw score of the whole row: a record that was not
read, or that of another entity, is a wrong answer.

How it works: 100 boosted trees of depth 6, as `bench.model`'s, trained on values that are
distributed as the stores' are. No training row lacks a value, so a feature's default is its
median: a row of defaults has a score of its own.

What it does not do: nothing is claimed about this model's quality.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.feature_store_data import CUSTOMER, EVENT_TIME_MS, TERMINAL, Sizes, chunks
from bench.message import Message
from bench.model import DEPTH, N_TREES, bundle_place
from bench.sources import SCORE
from fastpath.spec import layout_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb

REQUEST = ["amount", "during_weekend", "during_night"]
GROUPS = (CUSTOMER, TERMINAL)
NAMES = [*REQUEST, *(name for group in GROUPS for name, _ in group.columns)]
N_ROWS = 40_000
RECIPE = 1

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class FeatureModel:
    """A repository with one bundle whose schema names both groups."""

    repository: Path
    bundle: Path

    def raw_scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return stock onnxruntime's raw score of each row."""
        from bench.random_forests import stock_scores

        return stock_scores((self.bundle / "model.onnx").read_bytes(), rows)


def request_values(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Draw what requests bring with them, float32[n, 3]."""
    amount = rng.gamma(2.0, 30.0, n)
    flags = rng.random((n, 2)) < (0.3, 0.2)
    return np.column_stack([amount, flags]).astype(np.float32)


@functools.cache
def prepare() -> FeatureModel:
    """Train and export the model, unless this recipe's bundle is there."""
    repository, bundle, there = bundle_place("stored", [RECIPE, NAMES, N_TREES, DEPTH, N_ROWS])
    if not there:
        import pandas as pd
        from sklearn.ensemble import HistGradientBoostingClassifier

        from server.export import ExportOptions, FeatureOptions, export_model

        rng = np.random.default_rng(1)
        n = N_ROWS + N_ROWS // 4
        stored = rng.gamma(2.0, 20.0, (n, len(NAMES) - len(REQUEST)))
        values = np.column_stack([request_values(rng, n), stored]).astype(np.float32)
        signal = (values / values.std(axis=0) * np.linspace(0.3, 0.6, len(NAMES))).sum(axis=1)
        signal -= np.quantile(signal, 0.9)
        target = (rng.random(n) < 1 / (1 + np.exp(-2 * signal))).astype(int)
        rows = pd.DataFrame(values, columns=NAMES)
        train, valid = slice(0, N_ROWS), slice(N_ROWS, n)
        model = HistGradientBoostingClassifier(
            max_iter=N_TREES,
            max_depth=DEPTH,
            max_leaf_nodes=2**DEPTH,
            min_samples_leaf=20,
            early_stopping=False,
            random_state=0,
        ).fit(rows[train], target[train])
        sources = {name: group.name for group in GROUPS for name, _ in group.columns}
        options = ExportOptions(
            thresholds={"review": 0.5, "block": 0.9},
            routing_entity=CUSTOMER.entity,
            groups=GROUPS,
            features={name: FeatureOptions(source=source) for name, source in sources.items()},
        )
        export_model(
            model, rows[train], target[train], rows[valid], target[valid],
            out=bundle, options=options,
        )  # fmt: skip
    return FeatureModel(repository, bundle)


@functools.cache
def stored_values(sizes: Sizes) -> tuple[NDArray[np.float32], ...]:
    """Return what the records of each group hold, by the entity's number."""
    return tuple(
        np.concatenate([chunk.values for chunk in chunks(group, n)]) for group, n in sizes.groups()
    )


def whole_rows(sizes: Sizes, pairs: Pairs, seed: int) -> NDArray[np.float32]:
    """Return the model's row of each request, float32[n, 15]."""
    customers, terminals = stored_values(sizes)
    numbers = np.array(pairs, dtype=np.int64)
    own = request_values(np.random.default_rng(seed), len(pairs))
    return np.hstack([own, customers[numbers[:, 0]], terminals[numbers[:, 1]]])


def requests(
    pairs: Pairs, rows: NDArray[np.float32], scores: NDArray[np.float32], *, dense: bool
) -> list[Message]:
    """Make a request of each row, all different.

    Parameters
    ----------
    pairs
        Customer and terminal of each.
    rows, scores
        float32[n, 15] and float32[n]: see `whole_rows` and `FeatureModel.raw_scores`.
    dense
        Whether it holds all features itself, or the request's own only.
    """
    names = NAMES if dense else REQUEST
    layout = layout_fingerprint([(name, "numeric") for name in names])
    rng = np.random.default_rng(len(pairs))
    ids = rng.bytes(16 * len(pairs))
    later_ms = rng.integers(0, 86_400_000, len(pairs)).tolist()
    made = []
    for i, (customer, terminal) in enumerate(pairs):
        request = pb.ScoreRequest(
            request_id=str(uuid.UUID(bytes=ids[16 * i : 16 * i + 16], version=4)),
            event_time_ms=EVENT_TIME_MS + later_ms[i],
        )
        request.entities.add(role="payer", type=CUSTOMER.entity, id=customer)
        request.entities.add(role="payee", type=TERMINAL.entity, id=terminal)
        request.dense.layout = layout
        request.dense.values.extend(rows[i, : len(names)].tolist())
        made.append(Message(SCORE, request.SerializeToString(), expected_raw=float(scores[i])))
    return made
