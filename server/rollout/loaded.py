"""Models in memory: loaded once, kept as long as somebody needs them.

Rules: a version's content is its manifest's digest. What is in memory is not read again; a bundle
that was replaced under its version is noticed, and refused while its former content serves.
Loading happens on one thread; whoever asks waits for it. Once something serves, that thread takes
only what nobody else wants of the processor (see `server.priority`).

Who needs a model is said by `keep`: the rest is dropped, and its memory goes back when the last
plan that uses it is freed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from fastpath.errors import FastpathError
from fastpath.metrics import Metrics
from server.bundle import LoadedModel, load_model
from server.errors import BundleError, ScoregateError
from server.memory import trim
from server.priority import stand_back
from server.repository import Repository
from server.rollout.arms import ArmSource

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """What identifies a loaded model."""

    model: str
    version: str
    sha256: str  # of the manifest, hex


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of a model in memory."""

    key: Key
    content: LoadedModel
    slot: int  # of the metrics
    load_ms: float

    @property
    def source(self) -> ArmSource:
        """What changes need to know of it."""
        return arm_source(self.key, self.content)


def arm_source(key: Key, content: LoadedModel) -> ArmSource:
    """Return what changes need to know of a bundle."""
    return ArmSource(
        version=key.version,
        sha256=key.sha256,
        thresholds=tuple((t.name, t.raw_score, t.score) for t in content.manifest.thresholds),
    )


class LoadedModels:
    """The models in memory. Safe from any thread; loads happen one after the other.

    Parameters
    ----------
    repository
        Where bundles are read.
    metrics
        Where models get their counters.
    n_threads
        Threads that will score at once.
    """

    def __init__(self, repository: Repository, metrics: Metrics, n_threads: int) -> None:
        self._repository = repository
        self._metrics = metrics
        self._n_threads = n_threads
        self._lock = threading.Lock()
        self._models: dict[Key, Loaded] = {}
        self._failures: dict[Key, str] = {}  # why the last load of a content failed
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="scoregate-loader")

    def get(self, model: str, version: str, sha256: str = "") -> Loaded:
        """Return a model, loading it where it is not in memory.

        Parameters
        ----------
        model, version
            Its names; an empty version is the newest.
        sha256
            The content that is wanted, hex; empty: whatever is on disk.

        Raises
        ------
        StartError, BundleError
            It is not there, damaged, of another content, or cannot be served.
        """
        if sha256:
            found = self._find(Key(model, version, sha256))
            if found is not None:
                return found
        version, path = self._repository.find(model, version)
        on_disk = self._repository.digest(model, version)
        if sha256 and on_disk != sha256:
            raise BundleError(
                f"{path}: its content is another than when it was deployed (manifest "
                f"{on_disk[:12]}, was {sha256[:12]}): restore it, or deploy it under a new version"
            )
        key = Key(model, version, on_disk)
        found = self._find(key)
        return found or self._load_remembering(key)

    def peek(self, model: str, version: str) -> Loaded | None:
        """Return a model that is in memory, or None."""
        with self._lock:
            for key, loaded in self._models.items():
                if key[:2] == (model, version):
                    return loaded
        return None

    def failure(self, key: Key) -> str:
        """Return why the last load of a content failed; empty where it did not."""
        with self._lock:
            return self._failures.get(key, "")

    def all(self) -> list[Loaded]:
        """Return everything in memory."""
        with self._lock:
            return list(self._models.values())

    def keep(self, wanted: Collection[Key]) -> list[Loaded]:
        """Drop every model that is not wanted; return those that were dropped."""
        with self._lock:
            dropped = [loaded for key, loaded in self._models.items() if key not in wanted]
            for loaded in dropped:
                del self._models[loaded.key]
        for loaded in dropped:
            log.info("unloaded %s %s", loaded.key.model, loaded.key.version)
        return dropped

    def stand_back(self) -> None:
        """Let later loads take only what nobody else wants of the processor."""
        self._loader.submit(stand_back).result()

    def close(self) -> None:
        """End the loader's thread."""
        self._loader.shutdown()

    def _find(self, key: Key) -> Loaded | None:
        with self._lock:
            return self._models.get(key)

    def _load_remembering(self, key: Key) -> Loaded:
        try:
            loaded = self._loader.submit(self._load, key).result()
        except (ScoregateError, FastpathError) as error:
            with self._lock:
                self._failures[key] = str(error)
            raise
        with self._lock:
            self._failures.pop(key, None)
        return loaded

    def _load(self, key: Key) -> Loaded:
        found = self._find(key)
        if found is not None:
            return found  # loaded while this one waited
        started_ns = time.monotonic_ns()
        bundle = self._repository.read(key.model, key.version)
        if bundle.sha256.hex() != key.sha256:
            raise BundleError(f"{bundle.path}: was replaced while it was being read: try again")
        content = load_model(bundle, n_threads=self._n_threads)
        manifest = content.manifest
        slot = self._metrics.register(
            key.model,
            key.version,
            [manifest.default_decision, *(t.name for t in manifest.thresholds)],
            [group.name for group in content.schema.groups],
        )
        load_ms = (time.monotonic_ns() - started_ns) / 1e6
        loaded = Loaded(key, content, slot, load_ms)
        log.info(
            "loaded %s %s (%s engine) in %.0f ms", key.model, key.version, content.engine, load_ms
        )
        with self._lock:
            self._models[key] = loaded
        del bundle
        trim()
        return loaded
