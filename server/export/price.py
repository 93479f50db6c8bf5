"""Prices an export on validation rows: thresholds, flips, quality, sizes, times."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.bundle.link import prior_shift, shift_odds, smallest_raw
from server.bundle.manifest import Threshold
from server.bundle.report import FlipReport, QuantizationReport
from server.errors import InputError
from server.export.compare import Engines, Proof
from server.export.convert import Converted
from server.export.measure import measure_sizes, measure_times
from server.export.metrics import probabilities, quality
from server.export.options import ExportOptions
from server.export.prepare import Prepared


def log_odds_shift(prepared: Prepared, options: ExportOptions) -> float:
    """Return the correction for another prevalence at serving; 0 without `prior`."""
    if options.prior is None:
        return 0.0
    train = prepared.train
    return prior_shift(options.prior, train.n_positive / len(train.positive))


def make_thresholds(options: ExportOptions, converted: Converted, shift: float) -> list[Threshold]:
    """Return the thresholds in raw-score space, ascending."""
    out = [
        Threshold(name=n, raw_score=smallest_raw(s, converted.link, shift, n), score=s)
        for n, s in options.thresholds.items()
    ]
    out.sort(key=lambda threshold: threshold.raw_score)
    for low, high in itertools.pairwise(out):
        if low.raw_score == high.raw_score:
            raise InputError(
                f"thresholds {low.name} and {high.name} are the same raw score {low.raw_score}: "
                "set them further apart"
            )
    return out


def price(
    prepared: Prepared,
    converted: Converted,
    engines: Engines,
    proof: Proof,
    thresholds: Sequence[Threshold],
    shift: float,
    options: ExportOptions,
) -> QuantizationReport:
    """Return the whole report."""
    valid = prepared.valid
    expected = shift_odds(probabilities(prepared.model, valid.features), shift)
    report = QuantizationReport(
        engine=engines.engine,
        estimator=describe(prepared.given),
        n_rows=len(valid.positive),
        quality_before=quality(valid.positive, prepared.before),
        quality_after=quality(valid.positive, proof.raw),
        max_abs_delta_p=proof.max_abs_delta_p,
        tolerance=options.tolerance,
        float32_max_abs_delta_p=prepared.float32_delta,
        flips=_flips(thresholds, proof.raw, expected),
        sizes=measure_sizes(
            prepared.given, options.model_file, len(converted.model), engines.resident_bytes
        ),
        times=measure_times(prepared.model, engines.session, engines.served, valid.features[:64]),
        pruning=prepared.pruning,
        parity_rows=proof.parity_rows,
        layout=engines.layout,
        unused_features=_unused(converted, valid.names),
        notes=_notes(prepared, converted, options),
    )
    return _forest_figures(report, converted, engines)


def _flips(
    thresholds: Sequence[Threshold], raw: NDArray[np.float32], expected: NDArray[np.float64]
) -> list[FlipReport]:
    return [
        FlipReport(
            threshold=t.name,
            score=t.score,
            flips=int(((raw >= np.float32(t.raw_score)) != (expected >= t.score)).sum()),
            n_rows=len(raw),
        )
        for t in thresholds
    ]


def _forest_figures(
    report: QuantizationReport, converted: Converted, engines: Engines
) -> QuantizationReport:
    forest = converted.forest
    if forest is None:
        return report
    return msgspec.structs.replace(
        report,
        n_trees=forest.trees.n_trees,
        n_nodes=len(forest.trees.feature),
        max_depth=forest.trees.max_depth(),
        n_distinct_thresholds=sum(len(t) for t in engines.thresholds),
        grid_exponent=forest.exponent,
        leaf_dtype=forest.leaf_dtype,
        clipped_leaves=forest.clipped,
    )


def _unused(converted: Converted, names: Sequence[str]) -> list[str]:
    used = converted.used_features()
    return [] if used is None else [n for j, n in enumerate(names) if j not in used]


def _notes(prepared: Prepared, converted: Converted, options: ExportOptions) -> list[str]:
    notes = []
    if prepared.float32_delta > options.tolerance:
        notes.append(
            "features are served as float32; the same rows in float64 move scikit-learn's own "
            f"probability by up to {prepared.float32_delta:.3g}: fit and compare on float32 rows"
        )
    if converted.forest is None and converted.linear is None:
        notes.append("no native engine for this model: onnxruntime serves it")
    if not options.thresholds:
        notes.append(f"no thresholds: every decision is {options.default_decision!r}")
    return notes


def describe(model: Any) -> str:
    """Return the classes of a model's steps."""
    steps = getattr(model, "steps", None)
    if steps is None:
        return type(model).__name__
    return " > ".join(describe(step) for _, step in steps)
