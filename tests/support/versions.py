"""Further versions in a repository: copies of those that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.serving import MODEL


def add_version(repository: Path, version: str, source: str) -> Path:
    """Copy a bundle under another version; its manifest, and so its digest, is another."""
    target = repository / MODEL / version
    shutil.copytree(repository / MODEL / source, target)
    manifest = target / "manifest.json"
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "version": version}), "utf-8")
    return target
