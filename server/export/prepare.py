"""Checks the model and the rows, and prunes: what every later step works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.bundle.report import PruningReport
from server.errors import InputError
from server.export.convert import check_classifier
from server.export.frame import Rows, fingerprint, make_rows
from server.export.metrics import probabilities
from server.export.options import ExportOptions
from server.export.prune import keep_features, keep_trees


@dataclass(frozen=True)
class Prepared:
    """A checked model with its rows.

    `given` is the caller's model; `model` is what will be exported: the same, or a pruned one
    whose columns `train` and `valid` hold.
    """

    given: Any
    model: Any
    classes: list[str | int | float | bool]  # negative, positive
    train: Rows
    valid: Rows
    before: NDArray[np.float64]  # the given model's probabilities of the validation rows
    float32_delta: float  # largest change of those when the rows stay float64
    pruning: list[PruningReport]
    fingerprint: str  # of the training data


def prepare(
    model: Any,
    train_features: pd.DataFrame,
    train_target: Any,
    valid_features: pd.DataFrame,
    valid_target: Any,
    options: ExportOptions,
    say: Callable[[str], None],
) -> Prepared:
    """Check everything that was given and prune; see `export_model` for the parameters."""
    check_classifier(model)
    say("checking the rows")
    classes = [_plain(value) for value in model.classes_]
    train = make_rows(train_features, train_target, classes, "training")
    valid = make_rows(valid_features, valid_target, classes, "validation")
    target = np.asarray(train_target)
    identity = options.fingerprint or fingerprint(train_features.assign(**{options.target: target}))
    say("scoring validation rows in scikit-learn")
    given = model
    before = probabilities(given, valid.features)
    float32_delta = float(np.abs(before - probabilities(given, valid.wide)).max())
    pruning: list[PruningReport] = []
    if options.select_features is not None:
        say(f"fitting again on {options.select_features} features")
        model, kept, priced = keep_features(model, options.select_features, train, target, valid)
        train, valid = _columns(train, kept), _columns(valid, kept)
        pruning.append(priced)
    if options.max_trees is not None:
        say("leaving out trees")
        model, priced = keep_trees(model, options.max_trees, options.max_ap_loss, valid)
        pruning.append(priced)
    return Prepared(given, model, classes, train, valid, before, float32_delta, pruning, identity)


def _plain(value: Any) -> str | int | float | bool:
    """Return a class as JSON has it."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float | bool):
        raise InputError(f"class {plain!r} is a {type(plain).__name__}: use numbers or strings")
    return plain


def _columns(rows: Rows, kept: Sequence[int]) -> Rows:
    """Return rows with some of their columns."""
    return Rows(
        features=np.ascontiguousarray(rows.features[:, kept]),
        positive=rows.positive,
        names=tuple(rows.names[j] for j in kept),
        boolean=tuple(rows.boolean[j] for j in kept),
        wide=rows.wide[:, kept],
    )
