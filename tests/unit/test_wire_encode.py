"""`encode_response` against the official runtime's deterministic serialization: equal bytes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.answer import encode, encode_arm
from server.pb.scoregate.v1 import scoring_pb2 as pb

UINT32 = st.one_of(st.just(0), st.integers(0, 2**32 - 1))
UINT64 = st.one_of(st.just(0), st.integers(0, 2**64 - 1))
FLOAT = st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf]), st.floats(width=32))
DOUBLE = st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.nan, -math.inf]), st.floats())
ARM = st.fixed_dictionaries(
    {
        "model": st.text(max_size=20),
        "version": st.text(max_size=10),
        "sha256": st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
        "arm": st.text(max_size=10),
        "generation": UINT64,
        "score_kind": st.sampled_from([0, 1, 2]),
    }
)
RESPONSE = st.fixed_dictionaries(
    {
        "request_id": st.text(max_size=200),
        "raw_score": FLOAT,
        "score": DOUBLE,
        "decision": st.text(max_size=10),
        "threshold": st.one_of(st.none(), FLOAT),
        "bucket": UINT32,
        "unsticky": st.booleans(),
        "degraded": st.booleans(),
        "cached": st.booleans(),
        "explored": st.booleans(),
        "decision_propensity": DOUBLE,
        "source_counts": st.tuples(UINT32, UINT32, UINT32, UINT32),
        "provenance": st.one_of(st.none(), st.lists(st.integers(0, 4), max_size=300).map(bytes)),
        "timings": st.one_of(st.none(), st.tuples(UINT64, UINT64, UINT64, UINT64)),
    }
)


def official(response: dict[str, Any], arm: dict[str, Any]) -> bytes:
    """Return the same answer as the official runtime writes it."""
    fields = dict(response)
    counts, provenance, timings = (
        fields.pop(k) for k in ("source_counts", "provenance", "timings")
    )
    message = pb.ScoreResponse(**{k: v for k, v in fields.items() if v is not None})
    if any(counts):
        names = ("request", "online", "batch", "default_value")
        message.source_counts.MergeFrom(pb.SourceCounts(**dict(zip(names, counts, strict=True))))
    message.model, message.version = arm["model"], arm["version"]
    message.sha256, message.arm = arm["sha256"], arm["arm"]
    message.plan_generation, message.score_kind = arm["generation"], arm["score_kind"]
    sources: list[Any] = list(provenance or b"")
    message.provenance.extend(sources)
    if timings is not None:
        message.timings.SetInParent()
        names = ("parse_ns", "features_ns", "score_ns", "total_ns")
        message.timings.MergeFrom(pb.StageTimings(**dict(zip(names, timings, strict=True))))
    return message.SerializeToString(deterministic=True)


@given(RESPONSE, ARM)
@settings(max_examples=500)
def test_equal_bytes(response: dict[str, Any], arm: dict[str, Any]) -> None:
    assert encode(**response, arm=encode_arm(**arm)) == official(response, arm)


def test_defaults_are_not_written() -> None:
    assert encode() == b""
    assert encode_arm("", "", b"", "", 0, 0) == b""


def test_negative_zero_is_not_the_default() -> None:
    message = pb.ScoreResponse.FromString(encode(raw_score=-0.0, score=-0.0))
    assert math.copysign(1, message.raw_score) == math.copysign(1, message.score) == -1


def test_the_largest_answer_fits_its_bound() -> None:
    # The helper allocates exactly response_bound() bytes: the sanitizer build checks the bound.
    largest: dict[str, Any] = {
        "request_id": "r" * 128,
        "raw_score": -1.5,
        "score": -1.5,
        "decision": "d" * 300,
        "threshold": -1.5,
        "bucket": 2**32 - 1,
        "unsticky": True,
        "degraded": True,
        "cached": True,
        "explored": True,
        "decision_propensity": 1.0,
        "source_counts": (2**32 - 1,) * 4,
        "provenance": bytes([4]) * 1024,
        "timings": (2**64 - 1,) * 4,
    }
    arm: dict[str, Any] = {
        "model": "m" * 300, "version": "v" * 300, "sha256": b"s" * 32, "arm": "a" * 300,
        "generation": 2**64 - 1, "score_kind": 2,
    }  # fmt: skip
    assert encode(**largest, arm=encode_arm(**arm)) == official(largest, arm)


@pytest.mark.parametrize("generation", [-1, 2**64])
def test_a_generation_has_64_bits(generation: int) -> None:
    with pytest.raises(OverflowError):
        encode_arm("m", "1", b"", "a", generation, 1)
