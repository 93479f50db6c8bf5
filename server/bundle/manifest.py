"""`manifest.json` of a bundle, format 1: types, limits and decoding.

A bundle's manifest names every file of the bundle with its size and SHA-256, so the digest of the
manifest alone identifies the bundle. Reading follows three rules:

* the major format must be ours; a newer one is refused before anything else is looked at;
* everything in `requires` must be understood;
* unknown members are ignored, and listed files are hashed whether they are understood or not.

Decoding checks types and ranges and executes nothing. This module knows no paths and no files.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from server.bundle.report import QuantizationReport
from server.errors import BundleError

FORMAT = "1.0"
FORMAT_MAJOR = 1
# What `requires` may hold: what a schema may say that older programs do not know. A later format
# adds words, not a new major number.
FEATURE_GROUPS = "feature-groups"  # some features come from stores
RANGE_RULES = "range-rules"  # some values outside their range are clipped or refused
FALLBACK_LIMITS = "fallback-limits"
UNDERSTOOD = frozenset({FEATURE_GROUPS, RANGE_RULES, FALLBACK_LIMITS})

MANIFEST = "manifest.json"
MODEL = "model.onnx"
SCHEMA = "schema.json"
REFERENCE = "reference.npz"
CALIBRATION = "calibration.npz"
GOLDEN = "golden.npz"
REQUIRED_FILES = (MODEL, SCHEMA, REFERENCE, CALIBRATION, GOLDEN)

# Names of models and versions are folder names, URL parts and Prometheus label values.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, msgspec.Meta(ge=0)]


class FileEntry(msgspec.Struct, kw_only=True):
    """One file of the bundle."""

    sha256: Sha256
    bytes: Size


class Training(msgspec.Struct, kw_only=True):
    """Where the model came from."""

    fingerprint: str  # SHA-256 over columns, dtypes and rows of the training data
    n_rows: Size
    n_positive: Size
    n_valid_rows: Size
    n_valid_positive: Size
    target: str
    estimator: str = ""


class Outputs(msgspec.Struct, kw_only=True):
    """What the graph's output means and how a score comes from it.

    `logit`: score = 1 / (1 + exp(-(raw + shift))). `identity`: the raw score is a probability;
    its odds are multiplied by exp(shift), and with a shift of 0 the score is the raw score.
    """

    link: Literal["logit", "identity"]
    prior_log_odds_shift: float = 0.0
    classes: list[str | int | float | bool]  # negative, positive
    score_kind: Literal["probability", "value"] = "probability"


class Threshold(msgspec.Struct, kw_only=True):
    """One named decision: taken when the raw score reaches `raw_score`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    raw_score: float  # exactly a float32
    score: float  # what the user asked for


class Manifest(msgspec.Struct, kw_only=True):
    """The whole of `manifest.json`."""

    format: str = FORMAT
    name: Name
    version: Name
    created: str  # RFC 3339, UTC
    files: dict[str, FileEntry]
    outputs: Outputs
    training: Training
    thresholds: list[Threshold] = []  # ascending
    default_decision: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "approve"
    routing_entity: str = ""
    library_versions: dict[str, str] = {}
    metrics: dict[str, float] = {}
    quantization: QuantizationReport = msgspec.field(default_factory=QuantizationReport)
    reference: str = ""  # what drift is compared with; empty: the export's validation rows
    requires: list[str] = []


class _Header(msgspec.Struct, kw_only=True):
    """The part of a manifest that every format has."""

    format: str
    requires: list[str] = []


T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Encode a struct as indented JSON that ends in a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode_json(data: bytes, kind: type[T], where: str) -> T:
    """Decode JSON as a type; BundleError says where it does not fit."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{where}: {error}") from error


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Decode and check a manifest.

    Parameters
    ----------
    data : bytes
        The file's content.
    where : str
        The file's path, for messages.

    Raises
    ------
    BundleError
        Not JSON, a newer format, an unknown requirement, or a member outside its range.
    """
    header = decode_json(data, _Header, where)
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", header.format)
    if match is None:
        raise BundleError(f"{where}: format {header.format!r} is not of the form major.minor")
    if int(match[1]) > FORMAT_MAJOR:
        raise BundleError(
            f"{where}: format {header.format} is newer than this program reads "
            f"({FORMAT_MAJOR}.x): update scoregate, or export the model again with this version"
        )
    if int(match[1]) < FORMAT_MAJOR:
        raise BundleError(
            f"{where}: format {header.format} is unknown; this program reads {FORMAT}"
        )
    unknown = sorted(set(header.requires) - UNDERSTOOD)
    if unknown:
        raise BundleError(
            f"{where}: the bundle requires {', '.join(unknown)}, which this program does not know: "
            "update scoregate"
        )
    manifest = decode_json(data, Manifest, where)
    _check_manifest(manifest, where)
    return manifest


def _check_manifest(manifest: Manifest, where: str) -> None:
    """Check what types alone cannot say."""
    for name in manifest.files:
        if name in {".", "..", MANIFEST} or not re.fullmatch(NAME_PATTERN, name):
            raise BundleError(f"{where}: files: {name!r} is not a plain file name")
    missing = [name for name in REQUIRED_FILES if name not in manifest.files]
    if missing:
        raise BundleError(f"{where}: files: {', '.join(missing)} not listed; format 1 needs it")
    if not math.isfinite(manifest.outputs.prior_log_odds_shift):
        raise BundleError(f"{where}: outputs: prior_log_odds_shift is not finite")
    if len(manifest.outputs.classes) != 2:
        raise BundleError(f"{where}: outputs: classes holds {len(manifest.outputs.classes)}, not 2")
    previous = -math.inf
    names = {manifest.default_decision}
    for index, threshold in enumerate(manifest.thresholds):
        at = f"{where}: thresholds[{index}] ({threshold.name})"
        if not abs(threshold.raw_score) <= float(np.finfo(np.float32).max):
            raise BundleError(f"{at}: raw_score is not a finite float32")
        if float(np.float32(threshold.raw_score)) != threshold.raw_score:
            raise BundleError(f"{at}: raw_score {threshold.raw_score!r} is not a float32")
        if threshold.raw_score <= previous:
            raise BundleError(f"{at}: raw scores must ascend")
        if threshold.name in names:
            raise BundleError(f"{at}: the name stands twice")
        names.add(threshold.name)
        previous = threshold.raw_score
