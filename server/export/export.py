"""The export: a fitted scikit-learn classifier in, a verified bundle and its report out.

In order: check the model and the rows; prune if asked; convert (see `convert.py`); compare with
scikit-learn and with stock onnxruntime (`compare.py`); price everything on validation rows; load
the finished bundle in memory as the server will; write it. Nothing is written before all checks
have passed, and nothing here knows of the command line.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server import __version__
from server.bundle import Bundle, check_vacant, load_model, write_bundle
from server.bundle.arrays import encode_arrays
from server.bundle.manifest import (
    CALIBRATION,
    GOLDEN,
    MANIFEST,
    MODEL,
    REFERENCE,
    SCHEMA,
    FileEntry,
    Manifest,
    Outputs,
    Threshold,
    Training,
    decode_manifest,
    encode,
)
from server.bundle.report import FlipReport, PruningReport, QuantizationReport
from server.bundle.schema import SchemaFile
from server.errors import InputError
from server.export import compare
from server.export.convert import Converted, check_classifier, convert
from server.export.features import make_schema
from server.export.frame import Rows, fingerprint, make_rows
from server.export.link import prior_shift, shift_odds, smallest_raw
from server.export.measure import measure_sizes, measure_times
from server.export.metrics import accepts_missing, probabilities, quality
from server.export.options import ExportOptions
from server.export.prune import keep_features, keep_trees
from server.export.reference import calibration_arrays, reference_arrays

LIBRARIES = ("numpy", "scikit-learn", "onnx", "onnxruntime", "skl2onnx")


@dataclass(frozen=True)
class ExportReport:
    """What an export made."""

    path: Path
    sha256: bytes  # of the manifest: the bundle's identity
    manifest: Manifest
    schema: SchemaFile

    @property
    def quantization(self) -> QuantizationReport:
        """Return everything that was measured."""
        return self.manifest.quantization


def export_model(
    model: Any,
    train_features: pd.DataFrame,
    train_target: Any,
    valid_features: pd.DataFrame,
    valid_target: Any,
    *,
    out: Path | str,
    options: ExportOptions | None = None,
    step: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a fitted binary classifier as a bundle.

    Parameters
    ----------
    model : fitted scikit-learn classifier or Pipeline
    train_features, valid_features : pandas.DataFrame
        The model's input columns, in its order: numbers or booleans.
    train_target, valid_target : array-like
        Values of the model's classes.
    out : path
        The bundle's directory, `<repository>/<model>/<version>`; must not exist.
    options : ExportOptions
    step : callable
        Called with a few words when a step begins.

    Raises
    ------
    InputError
        Rows, names or options cannot be used.
    ExportError
        The model cannot be exported, or not within the tolerance.
    BundleError
        `out` exists or cannot be written; ParityError if the engines disagree.
    """
    options = options or ExportOptions()
    say = step or (lambda _: None)
    out = Path(out)
    check_vacant(out)
    check_classifier(model)
    say("checking the rows")
    classes = [_plain(value) for value in model.classes_]
    train = make_rows(train_features, train_target, classes, "training")
    valid = make_rows(valid_features, valid_target, classes, "validation")
    print_of_rows = options.fingerprint or fingerprint(
        train_features.assign(**{options.target: np.asarray(train_target)})
    )
    given = model
    say("scoring validation rows in scikit-learn")
    before = probabilities(model, valid.features)
    wide = float(np.abs(before - probabilities(model, valid.wide)).max())
    pruning: list[PruningReport] = []
    if options.select_features is not None:
        say(f"fitting again on {options.select_features} features")
        model, kept, priced = keep_features(
            model, options.select_features, train, np.asarray(train_target), valid
        )
        train, valid = _columns(train, kept), _columns(valid, kept)
        pruning.append(priced)
    if options.max_trees is not None:
        say("leaving out trees")
        model, priced = keep_trees(model, options.max_trees, options.max_ap_loss, valid)
        pruning.append(priced)

    say("converting")
    converted = convert(model, len(train.names))
    engines = compare.start(converted, str(out / MODEL))
    missing = accepts_missing(model, valid.features[0])
    schema = make_schema(model, train, options.features, missing=missing)
    say("comparing scikit-learn, onnxruntime and the native engine")
    edges = compare.edge_rows(engines, valid.features)
    raw = engines.served.score(valid.features)
    edge_raw = engines.served.score(edges)
    parity_rows = compare.check_bitwise(engines, valid.features, raw, train.names)
    parity_rows += compare.check_bitwise(engines, edges, edge_raw, train.names)
    tried = compare.sklearn_rows(edges, missing=missing)
    if engines.engine == "onnx" and missing:
        tried = np.concatenate([tried, _with_missing(valid.features, schema)])
    delta = compare.check_tolerance(
        model, converted, valid.features, raw, options.tolerance, train.names
    )
    if len(tried):
        delta = max(
            delta,
            compare.check_tolerance(
                model, converted, tried, engines.served.score(tried), options.tolerance, train.names
            ),
        )

    say("measuring")
    shift = 0.0
    if options.prior is not None:
        shift = prior_shift(options.prior, train.n_positive / len(train.positive))
    thresholds = _thresholds(options, converted, shift)
    expected = shift_odds(probabilities(model, valid.features), shift)
    report = QuantizationReport(
        engine=engines.engine,
        estimator=_describe(given),
        n_rows=len(valid.positive),
        quality_before=quality(valid.positive, before),
        quality_after=quality(valid.positive, raw),
        max_abs_delta_p=delta,
        tolerance=options.tolerance,
        float32_max_abs_delta_p=wide,
        flips=_flips(thresholds, raw, expected),
        sizes=measure_sizes(
            given, options.model_file, len(converted.model), engines.resident_bytes
        ),
        times=measure_times(model, engines.session, engines.served, valid.features[:64]),
        pruning=pruning,
        parity_rows=parity_rows,
        layout=engines.layout,
        unused_features=_unused(converted, train.names),
        notes=_notes(converted, wide, options),
    )
    report = _forest_figures(report, converted, engines)

    say("building the references")
    golden = compare.golden_sample(valid.features, edges)
    content = {
        MODEL: converted.model,
        SCHEMA: encode(schema),
        REFERENCE: encode_arrays(reference_arrays(valid.features, raw, valid.boolean)),
        CALIBRATION: encode_arrays(calibration_arrays(raw, valid.positive)),
        GOLDEN: encode_arrays({"rows": golden, "raw": engines.served.score(golden)}),
    }
    after = report.quality_after
    manifest = Manifest(
        name=options.name or out.absolute().parent.name,
        version=options.version or out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        files={
            name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
            for name, data in content.items()
        },
        outputs=Outputs(link=converted.link, prior_log_odds_shift=shift, classes=classes),
        training=Training(
            fingerprint=print_of_rows,
            n_rows=len(train.positive),
            n_positive=train.n_positive,
            n_valid_rows=len(valid.positive),
            n_valid_positive=valid.n_positive,
            target=options.target,
            estimator=report.estimator,
        ),
        thresholds=thresholds,
        default_decision=options.default_decision,
        routing_entity=options.routing_entity,
        library_versions=_library_versions(),
        metrics={
            "auc": after.auc or 0.0,
            "average_precision": after.average_precision or 0.0,
            "prevalence": valid.n_positive / len(valid.positive),
        },
        quantization=report,
    )
    say("loading the bundle as the server will")
    _load(out, manifest, schema, content)
    say("writing")
    sha256 = write_bundle(out, manifest, content)
    return ExportReport(path=out, sha256=sha256, manifest=manifest, schema=schema)


def _load(out: Path, manifest: Manifest, schema: SchemaFile, content: dict[str, bytes]) -> None:
    """Load the finished bundle from memory; its errors end the export."""
    data = encode(manifest)
    decode_manifest(data, str(out / MANIFEST))
    load_model(Bundle(out, manifest, schema, hashlib.sha256(data).digest(), content))


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


def _with_missing(rows: NDArray[np.float32], schema: SchemaFile) -> NDArray[np.float32]:
    """Return validation rows with NaN wherever serving may pass NaN to the model."""
    passed = [j for j, feature in enumerate(schema.features) if feature.default is None]
    some = rows[:1000].copy()
    if passed:
        holes = np.random.default_rng(0).random((len(some), len(passed))) < 0.3
        some[:, passed] = np.where(holes, np.float32(np.nan), some[:, passed])
    return some


def _thresholds(options: ExportOptions, converted: Converted, shift: float) -> list[Threshold]:
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
    report: QuantizationReport, converted: Converted, engines: compare.Engines
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


def _notes(converted: Converted, wide: float, options: ExportOptions) -> list[str]:
    notes = []
    if wide > options.tolerance:
        notes.append(
            f"scikit-learn itself differs by up to {wide:.3g} between float64 and float32 rows: "
            "fit the model on float32 data"
        )
    if converted.forest is None and converted.linear is None:
        notes.append("no native engine for this model: onnxruntime serves it")
    if not options.thresholds:
        notes.append(f"no thresholds: every decision is {options.default_decision!r}")
    return notes


def _describe(model: Any) -> str:
    """Return the classes of a model's steps."""
    steps = getattr(model, "steps", None)
    if steps is None:
        return type(model).__name__
    return " > ".join(_describe(step) for _, step in steps)


def _library_versions() -> dict[str, str]:
    versions = {"scoregate": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
