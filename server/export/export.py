"""The export: a fitted scikit-learn classifier in, a verified bundle and its report out.

In order: check the model and the rows, and prune if asked (`prepare.py`); convert (`convert.py`);
compare with scikit-learn and with stock onnxruntime (`compare.py`); price everything on validation
rows (`price.py`); load the finished bundle in memory as the server will; write it. Nothing is
written before all checks have passed, and nothing here knows of the command line.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

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
from server.bundle.report import QuantizationReport
from server.bundle.schema import SchemaFile, requirements
from server.drift.settings import monitored_features
from server.export import compare
from server.export.convert import Converted, convert
from server.export.features import make_schema
from server.export.metrics import accepts_missing
from server.export.options import ExportOptions
from server.export.prepare import Prepared, prepare
from server.export.price import log_odds_shift, make_thresholds, price
from server.export.reference import build_reference, calibration_arrays

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
    prepared = prepare(
        model, train_features, train_target, valid_features, valid_target, options, say
    )
    say("converting")
    converted = convert(prepared.model, len(prepared.train.names))
    engines = compare.start(converted, str(out / MODEL))
    missing = accepts_missing(prepared.model, len(prepared.train.names))
    schema = make_schema(
        prepared.model,
        prepared.train,
        options,
        [str(name) for name in train_features.columns],
        missing=missing,
    )
    say("comparing scikit-learn, onnxruntime and the native engine")
    proof = compare.prove(
        prepared.model,
        converted,
        engines,
        prepared.valid,
        schema,
        options.tolerance,
        missing=missing,
    )
    say("measuring")
    shift = log_odds_shift(prepared, options)
    thresholds = make_thresholds(options, converted, shift)
    report = price(prepared, converted, engines, proof, thresholds, shift, options)
    say("building the references")
    valid = prepared.valid
    content = {
        MODEL: converted.model,
        SCHEMA: encode(schema),
        REFERENCE: encode_arrays(
            build_reference(
                valid.features,
                proof.raw,
                monitored_features(schema.features),
                options.valid_time_ms,
            )
        ),
        CALIBRATION: encode_arrays(calibration_arrays(proof.raw, valid.positive)),
        GOLDEN: encode_arrays({"rows": proof.golden, "raw": engines.served.score(proof.golden)}),
    }
    manifest = _manifest(out, prepared, converted, content, thresholds, shift, report, options)
    manifest.requires = requirements(schema)
    say("loading the bundle as the server will")
    data = encode(manifest)
    decode_manifest(data, str(out / MANIFEST))
    load_model(Bundle(out, manifest, schema, hashlib.sha256(data).digest(), content))
    say("writing")
    sha256 = write_bundle(out, manifest, content)
    return ExportReport(path=out, sha256=sha256, manifest=manifest, schema=schema)


def _manifest(
    out: Path,
    prepared: Prepared,
    converted: Converted,
    content: dict[str, bytes],
    thresholds: list[Threshold],
    shift: float,
    report: QuantizationReport,
    options: ExportOptions,
) -> Manifest:
    """Return the manifest of a finished export."""
    train, valid, after = prepared.train, prepared.valid, report.quality_after
    return Manifest(
        name=options.name or out.absolute().parent.name,
        version=options.version or out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        files={
            name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
            for name, data in content.items()
        },
        outputs=Outputs(link=converted.link, prior_log_odds_shift=shift, classes=prepared.classes),
        training=Training(
            fingerprint=prepared.fingerprint,
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


def _library_versions() -> dict[str, str]:
    versions = {"scoregate": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
