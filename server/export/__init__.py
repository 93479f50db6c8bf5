"""Export: scikit-learn classifiers to quantized ONNX bundles, with a report of what it cost.

`export_model` does all of it; `scoregate export` is its command line. This package needs
scikit-learn, pandas, onnx and onnxruntime and is never imported by the serving process.
"""

from __future__ import annotations

from server.export.export import ExportReport, export_model
from server.export.options import ExportOptions, FeatureOptions

__all__ = ["ExportOptions", "ExportReport", "FeatureOptions", "export_model"]
