"""ListModels, LoadModel, UnloadModel: versions on disk and in memory, and whether they can serve.

Rules
-----
* Looking at a version is cheap: its manifest and schema are decoded, the sizes of its files
  compared. What only a load finds out (a changed file, an engine that disagrees) is known from the
  last load of that content that failed.
* What serves is listed even where it is gone from the disk or was replaced there; the detail says
  so.
"""

from __future__ import annotations

import hashlib
import stat
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from server.bundle import Manifest, read_manifest
from server.bundle.manifest import SCHEMA
from server.bundle.schema import decode_schema
from server.control.convert import Thresholds, check_names
from server.errors import BundleError, InputError, NotFoundError, ScoregateError
from server.pb.scoregate.v1 import control_pb2 as pb
from server.repository import natural_key
from server.rollout.loaded import Key, Loaded
from server.rollout.rollout import Rollout
from server.rollout.state import ArmState, ModelState

MAX_SCHEMA_BYTES = 16 << 20
MAX_KNOWN = 1024  # bundles whose thresholds are remembered


@dataclass(frozen=True, slots=True)
class Look:
    """A version on disk, at a glance."""

    sha256: str = ""  # of the manifest, hex; empty where it cannot be read
    manifest: Manifest | None = None
    problem: str = ""  # why it cannot serve


def look_at(path: Path, model: str, version: str) -> Look:
    """Look at a bundle, without hashing or loading it."""
    try:
        manifest, raw = read_manifest(path)
    except BundleError as error:
        return Look(problem=str(error))
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        _check(path, manifest, model, version)
    except BundleError as error:
        return Look(sha256, manifest, str(error))
    return Look(sha256, manifest)


def _check(path: Path, manifest: Manifest, model: str, version: str) -> None:
    if (manifest.name, manifest.version) != (model, version):
        raise BundleError(
            f"{path}: the manifest says {manifest.name} {manifest.version}; rename the "
            "directories, or export again"
        )
    for name, entry in manifest.files.items():
        try:
            status = (path / name).stat()
        except OSError as error:
            raise BundleError(f"{path / name}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.bytes:
            raise BundleError(
                f"{path / name}: holds {status.st_size} bytes, the manifest says {entry.bytes}"
            )
    if manifest.files[SCHEMA].bytes > MAX_SCHEMA_BYTES:
        raise BundleError(f"{path / SCHEMA}: larger than {MAX_SCHEMA_BYTES} bytes")
    try:
        schema = (path / SCHEMA).read_bytes()
    except OSError as error:
        raise BundleError(f"{path / SCHEMA}: cannot be read: {error.strerror}") from None
    decode_schema(schema, str(path / SCHEMA))


class KnownThresholds:
    """The thresholds of bundles: of those in memory, or on disk as they were. Thread-safe.

    Parameters
    ----------
    rollout
        Whose bundles.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self._lock = threading.Lock()
        # A key is a content, so what is known of it stays true.
        self._known: OrderedDict[Key, Thresholds] = OrderedDict()

    def __call__(self, key: Key) -> Thresholds:
        """Return (name, raw score, score), ascending; empty where the content is gone."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = self._find(key)
        if found is None:
            return ()
        with self._lock:
            self._known[key] = found
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return found

    def _find(self, key: Key) -> Thresholds | None:
        for loaded in self._rollout.models.all():
            if loaded.key == key:
                return loaded.source.thresholds
        try:
            _, path = self._rollout.repository.find(key.model, key.version)
            manifest, raw = read_manifest(path)
        except ScoregateError:
            return None
        if hashlib.sha256(raw).hexdigest() != key.sha256:
            return None
        return tuple((t.name, t.raw_score, t.score) for t in manifest.thresholds)


class Models:
    """The three RPCs.

    Parameters
    ----------
    rollout
        Whose models.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout

    def read(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """Return every version of one model, or of all."""
        check_names(model=request.model)
        served = self._rollout.served
        serving = {} if served is None else {model.name: model for model in served.state.models}
        names = sorted({*self._rollout.repository.models(), *serving})
        if request.model:
            if request.model not in names:
                raise NotFoundError(
                    f"no model {request.model} in {self._rollout.repository.path}; there is "
                    f"{', '.join(names) or 'none'}"
                )
            names = [request.model]
        return pb.ListModelsResponse(
            models=[
                pb.ModelVersions(
                    model=name,
                    is_default=name == self._rollout.default_model,
                    versions=self._versions(name, serving.get(name)),
                )
                for name in names
            ]
        )

    def load(self, request: pb.LoadModelRequest) -> pb.LoadModelResponse:
        """Load a version, and keep it loaded."""
        check_names(model=request.model, version=request.version)
        started_ns = time.monotonic_ns()
        _, key = self._rollout.load(request.model, request.version)
        load_ms = (time.monotonic_ns() - started_ns) / 1e6
        model = self._rollout.state().model(key.model)
        return pb.LoadModelResponse(
            version=self._version(key.model, key.version, model), load_ms=load_ms
        )

    def unload(self, request: pb.UnloadModelRequest) -> pb.UnloadModelResponse:
        """Drop a version from memory."""
        check_names(model=request.model, version=request.version)
        if not request.version:
            raise InputError("version: say which one to unload; `scoregate models list` shows them")
        return pb.UnloadModelResponse(
            freed_bytes=self._rollout.unload(request.model, request.version)
        )

    def _versions(self, name: str, model: ModelState | None) -> list[pb.ModelVersion]:
        try:
            versions = set(self._rollout.repository.versions(name))
        except NotFoundError:
            versions = set()
        versions |= {arm.version for arm in (model.arms if model else ())}
        versions |= {one.key.version for one in self._rollout.models.all() if one.key.model == name}
        ordered = sorted(versions, key=natural_key, reverse=True)
        return [self._version(name, version, model) for version in ordered]

    def _version(self, name: str, version: str, model: ModelState | None) -> pb.ModelVersion:
        look = look_at(self._rollout.repository.path / name / version, name, version)
        labels = {} if model is None else model.labels
        message = pb.ModelVersion(
            version=version, labels=[label for label, named in labels.items() if named == version]
        )
        arm = next((one for one in (model.arms if model else ()) if one.version == version), None)
        loaded = self._loaded(name, version, look.sha256 if arm is None else arm.sha256)
        message.sha256 = bytes.fromhex(look.sha256 if arm is None else arm.sha256)
        if loaded is not None:
            message.resident_bytes = loaded.content.resident_bytes
            message.engine = loaded.content.engine
        manifest = look.manifest if loaded is None else loaded.content.manifest
        message.created = "" if manifest is None else manifest.created
        problem = look.problem or self._rollout.models.failure(Key(name, version, look.sha256))
        if arm is not None:
            message.state = pb.MODEL_VERSION_STATE_SERVING
            message.arm = arm.name
            message.weight_basis_points = arm.weight_basis_points
            message.detail = _beside(arm, look, problem)
        elif problem:
            message.state = pb.MODEL_VERSION_STATE_BROKEN
            message.detail = problem
        elif loaded is not None:
            message.state = pb.MODEL_VERSION_STATE_LOADED
        else:
            message.state = pb.MODEL_VERSION_STATE_AVAILABLE
        return message

    def _loaded(self, model: str, version: str, sha256: str) -> Loaded | None:
        key = Key(model, version, sha256)
        return next((one for one in self._rollout.models.all() if one.key == key), None)


def _beside(arm: ArmState, look: Look, problem: str) -> str:
    """Return what is wrong on disk with a version that serves from memory."""
    if problem:
        return f"serves from memory; on disk it could not be loaded again: {problem}"
    if look.sha256 != arm.sha256:
        return (
            f"serves from memory; on disk is another content (manifest {look.sha256[:12]}, serving "
            f"{arm.sha256[:12]}): restore it, or deploy it under a new version"
        )
    return ""
