"""Bundles and export reports as aligned tables, for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.bundle.manifest import Manifest, Threshold
from server.bundle.report import PruningReport, QuantizationReport
from server.bundle.schema import SchemaFile, compile_schema
from server.bundle.schema_tables import schema_tables
from server.bundle.tables import NONE, make_table


def format_bytes(n: int | None) -> str:
    """Return a size with its unit; a dash where it is not known."""
    if n is None:
        return NONE
    value = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the loop returns")


def format_us(value: float | None) -> str:
    """Return a time in microseconds; a dash where it was not taken."""
    if value is None:
        return NONE
    return f"{value:,.0f} µs" if value >= 100 else f"{value:.3g} µs"


def _number(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def print_report(console: Console, report: QuantizationReport) -> None:
    """Print what an export measured."""
    before, after = report.quality_before, report.quality_after
    sizes, times = report.sizes, report.times
    console.print(
        make_table(
            f"{report.estimator} on {report.n_rows:,} validation rows",
            ["", "scikit-learn", "bundle"],
            [
                ("AUC", _number(before.auc), _number(after.auc)),
                (
                    "average precision",
                    _number(before.average_precision),
                    _number(after.average_precision),
                ),
                (
                    "file (joblib / model.onnx)",
                    format_bytes(sizes.model_file_bytes),
                    format_bytes(sizes.onnx_file_bytes),
                ),
                (
                    "resident (pickled / engine)",
                    format_bytes(sizes.pickled_bytes),
                    format_bytes(sizes.engine_resident_bytes),
                ),
                (
                    f"one row ({report.engine} engine)",
                    format_us(times.sklearn_us),
                    format_us(times.native_us),
                ),
                ("one row (Python onnxruntime)", NONE, format_us(times.onnxruntime_us)),
            ],
        )
    )
    for item in report.pruning:
        console.print(_pruning_table(item))
    console.print(make_table("Fidelity", ["", ""], _fidelity(report)))
    for note in report.notes:
        console.print(Text(f"note: {note}"))


def _fidelity(report: QuantizationReport) -> list[tuple[str, str]]:
    rows = [
        (
            "largest difference in probability",
            f"{report.max_abs_delta_p:.2e} (tolerance {report.tolerance:g})",
        ),
        ("rows equal bit by bit to onnxruntime", f"{report.parity_rows:,}"),
    ]
    rows += [
        (f"decision flips at {flip.threshold} ({flip.score:g})", f"{flip.flips} of {flip.n_rows:,}")
        for flip in report.flips
    ]
    if report.n_trees is not None:
        rows += [
            (
                "trees, nodes, depth",
                f"{report.n_trees:,}, {report.n_nodes:,}, {report.max_depth} ({report.layout})",
            ),
            ("distinct thresholds", f"{report.n_distinct_thresholds:,}"),
            ("leaf grid", f"2^-{report.grid_exponent}, {report.leaf_dtype}"),
            ("leaves clipped at ±64", f"{report.clipped_leaves}"),
        ]
    if report.unused_features:
        rows.append(("unused features", ", ".join(report.unused_features)))
    return rows


def _pruning_table(item: PruningReport) -> Table:
    before, after = item.quality_before, item.quality_after
    title = f"Fewer {item.kind}: {item.before:,} to {item.after:,}"
    return make_table(
        f"{title} ({item.note})" if item.note else title,
        ["", "before", "after"],
        [
            ("AUC", _number(before.auc), _number(after.auc)),
            (
                "average precision",
                _number(before.average_precision),
                _number(after.average_precision),
            ),
            *([("kept", "", ", ".join(item.kept))] if item.kept else []),
        ],
    )


def print_bundle(
    console: Console,
    manifest: Manifest,
    schema: SchemaFile | None,
    states: dict[str, str],
    header: Sequence[tuple[str, str]],
) -> None:
    """Print a bundle.

    Parameters
    ----------
    console : Console
    manifest : Manifest
    schema : SchemaFile or None
        None where `schema.json` cannot be read.
    states : dict of str to str
        What is known of each file.
    header : sequence of (label, text)
        First lines, in order.
    """
    title = f"{manifest.name} {manifest.version}"
    console.print(make_table(title, ["", ""], header))
    console.print(
        make_table(
            "Files",
            ["name", "size", "SHA-256", "state"],
            [
                (name, format_bytes(entry.bytes), entry.sha256[:16] + "…", states.get(name, NONE))
                for name, entry in manifest.files.items()
            ],
        )
    )
    if schema is not None:
        for table in schema_tables(compile_schema(schema)):
            console.print(table)
    console.print(_thresholds_table(manifest.thresholds, manifest.default_decision))
    print_report(console, manifest.quantization)


def _thresholds_table(thresholds: Sequence[Threshold], default: str) -> Table:
    rows = [(t.name, f"{t.score:g}", f"{t.raw_score:.9g}") for t in thresholds]
    return make_table(
        "Decisions", ["decision", "score", "raw score"], [(default, "else", ""), *rows]
    )
