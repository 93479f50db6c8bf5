"""A repository with versions 1.0 and 2.0 of one model, as the README and the runbooks tell of."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from server.export import ExportOptions, export_model
from tests.support.serving import MODEL, example_repository, example_rows

# Version in the story -> version of the example.
VERSIONS = {"1.0": "1", "2.0": "2"}


@functools.cache
def story_repository() -> Path:
    """Export the example's models under the story's versions, once per process."""
    folder = Path(tempfile.mkdtemp(prefix="scoregate-story-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    models = example_repository().models
    options = ExportOptions(thresholds={"review": 0.3, "block": 0.8}, routing_entity="customer")
    for version, origin in VERSIONS.items():
        train, target = example_rows(2000, 1)
        valid, valid_target = example_rows(800, 2)
        out = folder / MODEL / version
        export_model(models[origin], train, target, valid, valid_target, out=out, options=options)
    return folder
