"""Further versions and models in a repository: copies of those that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.serving import MODEL


def add_version(repository: Path, version: str, source: str, model: str = MODEL) -> Path:
    """Copy a bundle of MODEL under another version, or model; its digest is another."""
    target = repository / model / version
    shutil.copytree(repository / MODEL / source, target)
    manifest = target / "manifest.json"
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "name": model, "version": version}), "utf-8")
    return target
