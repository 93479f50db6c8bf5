"""What serves, as a value: models, arms, weights, bucket tables, thresholds, labels.

Rules: a state is immutable and complete: from it and the bundles that it names, a serving plan can
be built that answers exactly as the one that it was taken from. So bucket tables are kept whole
(they depend on their history), an arm names its bundle by digest, and thresholds are kept as raw
scores. The order of a model's arms is the order of the table's indexes.

`changes` makes one state from another, `journal` keeps them, `rollout` puts them in force.
"""

from __future__ import annotations

import zlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from server.errors import JournalError

# Of the encoded form. A reader refuses what it does not know.
STATE_FORMAT = 1

BasisPoints = Annotated[int, Meta(ge=0, le=10_000)]


class ThresholdState(Struct, frozen=True):
    """A threshold that an operator set instead of the bundle's."""

    name: str
    raw_score: float  # a float32's value: decisions compare these
    score: float  # what the operator gave, for people


class ArmState(Struct, frozen=True):
    """One version of a model, taking part."""

    name: str  # "champion", "canary": unique in its model
    version: str
    sha256: str  # of the bundle's manifest, hex
    weight_basis_points: BasisPoints
    # None: the bundle's own. Ascending, and the same names in the same order as the bundle's.
    thresholds: tuple[ThresholdState, ...] | None = None


class ModelState(Struct, frozen=True):
    """One model and its split."""

    name: str
    arms: tuple[ArmState, ...]
    table: bytes  # zlib of the 10,000 arm indexes, see `pack_table`
    salt: str  # of the bucket hash; UTF-8 bytes of it are the table's salt
    overrides: dict[str, str] = {}  # routing key -> arm name
    labels: dict[str, str] = {}  # "stable" -> version
    explore_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0  # see `exploring`


class PlanState(Struct, frozen=True):
    """Everything that is in force."""

    generation: int  # of the serving plan: grows with every change, never reused
    default_model: str
    models: tuple[ModelState, ...]  # by name
    frozen: str = ""  # why changes are refused; empty: they are not
    format: int = STATE_FORMAT

    def model(self, name: str) -> ModelState | None:
        """Return a model by name (empty: the default one), or None."""
        wanted = name or self.default_model
        return next((model for model in self.models if model.name == wanted), None)


def pack_table(arms: bytes) -> bytes:
    """Return 10,000 arm indexes in the form that a state keeps."""
    return zlib.compress(arms, 9)


def unpack_table(packed: bytes) -> bytes:
    """Return the 10,000 arm indexes of a state.

    Raises
    ------
    JournalError
        They are damaged.
    """
    try:
        arms = zlib.decompress(packed)
    except zlib.error as error:
        raise JournalError(f"a bucket table is damaged: {error}") from None
    if len(arms) != 10_000:
        raise JournalError(f"a bucket table has {len(arms)} buckets, not 10000")
    return arms


def encode_state(state: PlanState) -> bytes:
    """Return a state as JSON."""
    return msgspec.json.encode(state)


def decode_state(data: bytes) -> PlanState:
    """Return the state that `encode_state` wrote.

    Raises
    ------
    JournalError
        It is damaged, or of a newer format.
    """
    try:
        state = msgspec.json.decode(data, type=PlanState)
    except msgspec.DecodeError as error:
        raise JournalError(f"a state cannot be read: {error}") from None
    if state.format > STATE_FORMAT:
        raise JournalError(
            f"a state has format {state.format}, this version reads up to {STATE_FORMAT}: upgrade"
        )
    return state
