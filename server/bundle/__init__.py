"""Bundles: directories that hold one version of a model, verified before they serve.

`read_bundle` verifies, `load_model` compiles and proves, `write_bundle` writes. `manifest.py` says
what format 1 holds. Loading is imported on first use: it needs the compiled engines, reading and
writing do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from server.bundle.manifest import FORMAT, Manifest
from server.bundle.reader import Bundle, file_states, read_bundle, read_manifest
from server.bundle.writer import check_vacant, write_bundle

if TYPE_CHECKING:
    from server.bundle.load import LoadedModel, load_model

__all__ = [
    "FORMAT",
    "Bundle",
    "LoadedModel",
    "Manifest",
    "check_vacant",
    "file_states",
    "load_model",
    "read_bundle",
    "read_manifest",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Import the loader when it is asked for."""
    if name in {"LoadedModel", "load_model"}:
        return getattr(importlib.import_module("server.bundle.load"), name)
    raise AttributeError(name)
