"""The quantization report: what an export changed, and what it cost.

It is written by `scoregate export`, printed there, kept in the manifest under `quantization` and
shown again by `scoregate inspect`. Every field has a default, so a manifest from an older or newer
export still reads. A figure that could not be taken is null, never NaN.
"""

from __future__ import annotations

import msgspec


class QualityReport(msgspec.Struct, kw_only=True):
    """How well one form of the model ranks the validation rows."""

    auc: float | None = None
    average_precision: float | None = None


class SizeReport(msgspec.Struct, kw_only=True):
    """What the model takes on disk and in memory, in bytes, before and after."""

    model_file_bytes: int | None = None  # the joblib file
    pickled_bytes: int | None = None  # the estimator in memory, by its uncompressed pickle
    onnx_file_bytes: int = 0  # model.onnx of the bundle
    engine_resident_bytes: int | None = None  # the native engine's arrays


class TimeReport(msgspec.Struct, kw_only=True):
    """Median time of one row, in microseconds, on the exporting machine."""

    sklearn_us: float | None = None  # predict_proba of one row
    onnxruntime_us: float | None = None  # Python onnxruntime, one row, one thread
    native_us: float | None = None  # the serving engine, per row of a call over many rows


class FlipReport(msgspec.Struct, kw_only=True):
    """Decisions on validation rows that the quantized model takes differently."""

    threshold: str
    score: float
    flips: int
    n_rows: int


class PruningReport(msgspec.Struct, kw_only=True):
    """What removing features or trees did to the validation rows' quality."""

    kind: str  # "features" or "trees"
    before: int
    after: int
    quality_before: QualityReport
    quality_after: QualityReport
    kept: list[str] = []  # names, for features
    note: str = ""


class QuantizationReport(msgspec.Struct, kw_only=True):
    """Everything that an export measured."""

    engine: str = "onnx"  # "forest", "linear" or "onnx"
    estimator: str = ""
    n_rows: int = 0  # validation rows that the figures were taken on
    quality_before: QualityReport = msgspec.field(default_factory=QualityReport)
    quality_after: QualityReport = msgspec.field(default_factory=QualityReport)
    max_abs_delta_p: float = 0.0  # largest |scikit-learn - quantized| probability
    tolerance: float = 0.0
    float32_max_abs_delta_p: float | None = None  # scikit-learn against itself on float32 rows
    flips: list[FlipReport] = []
    sizes: SizeReport = msgspec.field(default_factory=SizeReport)
    times: TimeReport = msgspec.field(default_factory=TimeReport)
    pruning: list[PruningReport] = []
    n_trees: int | None = None
    n_nodes: int | None = None
    max_depth: int | None = None
    n_distinct_thresholds: int | None = None
    grid_exponent: int | None = None  # k: leaves are integers times 2 ** -k
    leaf_dtype: str | None = None  # "int16" or "int32": what the integers fit
    clipped_leaves: int = 0  # leaves beyond +-64 in raw score
    unused_features: list[str] = []
    parity_rows: int = 0  # rows on which stock onnxruntime and the native engine agree bitwise
    layout: str | None = None  # the forest's layout in memory
    notes: list[str] = []
