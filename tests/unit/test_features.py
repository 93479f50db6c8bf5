"""`resolve` against a plain model of its rules, and its errors."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import RequestError
from fastpath.features import resolve_message
from fastpath.schema import FeatureSpec, Gather, Schema
from server.pb.scoregate.v1 import scoring_pb2 as pb

NAN, INF = math.nan, math.inf
REQUEST, DEFAULT, UNSEEN = 1, 4, 5
VOCABULARY = ("BE", "", "FR", "zażółć")
SPECS = (
    FeatureSpec("amount", "numeric", default=-1.0, minimum=-1.0, maximum=100.1),
    FeatureSpec("night", "boolean", default=1.0),
    FeatureSpec("country", "categorical", default=2.0, vocabulary=VOCABULARY),
    FeatureSpec("free", "numeric"),
    FeatureSpec("age", "numeric", required=True, minimum=0.0),
    FeatureSpec("known", "boolean", required=True),
)

# Values that stand on the edges of the rules, as well as any others.
DENSE_VALUE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 4.0, 0.5, -1.0, 100.1, NAN, INF, -INF]),
    st.sampled_from([100.10000610351562, 100.09999084472656, 3.4e38, -3.4e38, 1e-45, 2**25]),
    st.floats(width=32),
).map(lambda value: struct.unpack("<f", struct.pack("<f", value))[0])
NAMED_VALUE = st.one_of(
    st.none(),
    st.sampled_from([0.0, 1.0, 1 + 1e-12, -1 - 1e-9, 100.1, 1e39, -1e39, NAN, INF]),
    st.floats(),
    st.booleans(),
    st.sampled_from([*VOCABULARY, "DE"]),
)


def float32(value: float) -> float:
    """Round to the nearest float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def judge(spec: FeatureSpec, value: float | None) -> str | float:
    """Return the usable value, or why there is none: the rules in their plainest form."""
    if value is None or math.isnan(value):
        return "null"
    value = float32(value)
    if math.isinf(value):
        return "infinite"
    if spec.type == "boolean":
        return value if value in (0.0, 1.0) else "range"
    if spec.type == "categorical":
        return value if value in range(len(spec.vocabulary)) else "unseen"
    return value if float32(spec.minimum) <= value <= float32(spec.maximum) else "range"


def judge_named(spec: FeatureSpec, value: float | bool | str | None) -> str | float:
    """Return the same for a named value, or "mistyped"."""
    if value is None:
        return "null"
    if spec.type == "categorical":
        if not isinstance(value, str):
            return "mistyped"
        return float(spec.vocabulary.index(value)) if value in spec.vocabulary else "unseen"
    if isinstance(value, str) or (isinstance(value, bool) and spec.type == "numeric"):
        return "mistyped"
    return judge(spec, float(value))


def check(
    specs: Sequence[FeatureSpec], verdicts: Sequence[str | float], gather: Gather | None,
    schema: Schema, message: pb.ScoreRequest,
) -> None:  # fmt: skip
    """Compare `resolve` with the verdicts on every feature."""
    data = message.SerializeToString()
    pairs = list(zip(specs, verdicts, strict=True))
    if "mistyped" in verdicts:
        # Of several mistyped features any may be named: a map has no order.
        names = "|".join(spec.name for spec, verdict in pairs if verdict == "mistyped")
        with pytest.raises(RequestError, match=f'feature "({names})" is .*, but the request holds'):
            resolve_message(schema, gather, data)
        return
    lacking = [s.name for s, v in pairs if isinstance(v, str) and s.required]
    if lacking:
        with pytest.raises(RequestError, match=f'feature "{lacking[0]}" is required'):
            resolve_message(schema, gather, data)
        return
    got = resolve_message(schema, gather, data)
    row = [float32(s.default) if isinstance(v, str) else v for s, v in pairs]
    assert got["row"].tobytes() == np.array(row, dtype=np.float32).tobytes()
    by_verdict = {"unseen": UNSEEN}
    sources = [by_verdict.get(v, DEFAULT) if isinstance(v, str) else REQUEST for v in verdicts]
    assert list(got["sources"]) == sources
    told = [min(source, DEFAULT) for source in sources]
    assert got["n_by_source"] == [told.count(source) for source in range(5)]
    missing = Counter(v for v in verdicts if isinstance(v, str))
    assert got["n_missing"] == {
        key: missing[key] for key in ("absent", "null", "infinite", "range", "unseen")
    }


def dense(values: Sequence[float]) -> pb.ScoreRequest:
    """Return a dense request."""
    return pb.ScoreRequest(dense=pb.DenseFeatures(values=values))


def named(values: dict[str, Any]) -> pb.ScoreRequest:
    """Return a request of named features."""
    message = pb.ScoreRequest(named=pb.NamedFeatures())
    for name, value in values.items():
        target = message.named.values[name]
        if isinstance(value, bool):
            target.flag = value
        elif isinstance(value, str):
            target.text = value
        elif value is not None:
            target.number = value
    return message


@given(st.data())
@settings(max_examples=400)
def test_dense_rows_of_any_layout(data: st.DataObject) -> None:
    specs = data.draw(st.lists(st.sampled_from(SPECS), min_size=1, unique=True))
    schema = Schema(specs)
    layout = data.draw(
        st.one_of(
            st.just(list(schema.columns)),
            st.permutations([*schema.columns, ("unread", "numeric")]),
            st.permutations([c for c, s in zip(schema.columns, specs, strict=True) if s.required]),
        ).filter(bool)
    )
    values = data.draw(st.lists(DENSE_VALUE, min_size=len(layout), max_size=len(layout)))
    by_name = dict(zip([name for name, _ in layout], values, strict=True))
    verdicts = [judge(s, by_name[s.name]) if s.name in by_name else "absent" for s in specs]
    check(specs, verdicts, Gather(schema, layout), schema, dense(values))


@given(st.data())
@settings(max_examples=400)
def test_named_features(data: st.DataObject) -> None:
    specs = data.draw(st.lists(st.sampled_from(SPECS), min_size=1, unique=True))
    schema = Schema(specs)
    given_specs = data.draw(st.lists(st.sampled_from(specs), unique=True))
    fitting = {
        "numeric": st.one_of(st.none(), st.floats()),
        "boolean": st.one_of(st.booleans(), st.sampled_from([0.0, 1.0])),
        "categorical": st.sampled_from([*VOCABULARY, "DE"]),
    }
    values = {
        spec.name: data.draw(st.one_of(fitting[spec.type], fitting[spec.type], NAMED_VALUE))
        for spec in given_specs
    }
    verdicts = [judge_named(s, values[s.name]) if s.name in values else "absent" for s in specs]
    check(specs, verdicts, None, schema, named(values))


@given(st.integers(1, 70), st.data())
def test_the_fast_path_sees_every_column(n: int, data: st.DataObject) -> None:
    # Widths around the vector length, with one bad value anywhere.
    specs = [
        FeatureSpec(f"f{i}", "boolean" if i % 5 == 3 else "numeric", default=0.0, minimum=-INF if
        i % 5 == 3 else -10.0) for i in range(n)
    ]  # fmt: skip
    schema = Schema(specs)
    gather = Gather(schema, schema.columns)
    values = [1.0] * n
    check(specs, values, gather, schema, dense(values))
    at = data.draw(st.integers(0, n - 1))
    values[at] = data.draw(st.sampled_from([NAN, INF, -INF, -11.0, 0.5]))
    check(specs, [judge(s, v) for s, v in zip(specs, values, strict=True)], gather, schema,
          dense(values))  # fmt: skip


def test_a_full_schema() -> None:
    schema = Schema([FeatureSpec(f"f{i}", "numeric") for i in range(1024)])
    gather = Gather(schema, schema.columns)
    values = [float(i) for i in range(1024)]
    got = resolve_message(schema, gather, dense(values).SerializeToString())
    assert got["row"].tolist() == values
    with pytest.raises(RequestError, match="holds 1025 values, its layout has 1024 columns"):
        resolve_message(schema, gather, dense([*values, 0.0]).SerializeToString())


def test_no_features_at_all() -> None:
    schema = Schema(SPECS[:4])
    got = resolve_message(schema, None, b"")
    assert got["n_missing"]["absent"] == 4
    assert got["row"][:3].tolist() == [-1.0, 1.0, 2.0]
    assert np.isnan(got["row"][3])


@pytest.mark.parametrize("n", [0, 1, 3, 2000])
def test_the_number_of_values_must_fit(n: int) -> None:
    schema = Schema(SPECS[:2])
    with pytest.raises(RequestError, match=f"holds {n} values, its layout has 2 columns"):
        resolve_message(
            schema, Gather(schema, schema.columns), dense([1.0] * n).SerializeToString()
        )


def test_an_unknown_layout() -> None:
    message = dense([1.0])
    message.dense.layout = 0xABC
    with pytest.raises(RequestError, match="layout 0x0000000000000abc is not one"):
        resolve_message(Schema(SPECS[:1]), None, message.SerializeToString())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"amounts": 1.0}, 'feature "amounts" is not in the model\'s schema'),
        ({"é" * 200: 1.0}, 'feature "' + "é" * 40 + '" is not in'),
        ({"x" + "é" * 200: 1.0}, 'feature "x' + "é" * 39 + '" is not in'),
        ({"amount": "12"}, 'feature "amount" is numeric and takes a number, .* holds a text'),
        ({"amount": True}, 'feature "amount" is numeric and takes a number, .* holds a flag'),
        ({"night": "yes"}, 'feature "night" is boolean and takes a flag, .* holds a text'),
        ({"country": 1.0}, 'feature "country" is categorical and takes a text, .* a number'),
        ({"country": False}, 'feature "country" is categorical and takes a text, .* a flag'),
        ({}, 'feature "age" is required, but its value is absent'),
        ({"age": None}, 'feature "age" is required, but its value is null'),
        ({"age": NAN}, 'feature "age" is required, but its value is null'),
        ({"age": 1e39}, 'feature "age" is required, but its value is infinite'),
        ({"age": -1.0}, 'feature "age" is required, but its value is outside its range'),
        ({"age": 1.0, "known": 2.0}, 'feature "known" is required, .* is outside its range'),
    ],
)
def test_errors_name_the_feature(values: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        resolve_message(Schema(SPECS), None, named(values).SerializeToString())


def test_a_required_categorical_must_be_in_its_vocabulary() -> None:
    schema = Schema([FeatureSpec("c", "categorical", required=True, vocabulary=("a",))])
    with pytest.raises(RequestError, match='"c" is required, but its value is not in its voc'):
        resolve_message(schema, None, named({"c": "b"}).SerializeToString())


def test_a_gather_of_another_schema_is_refused() -> None:
    schema = Schema(SPECS)
    other = Schema(SPECS)
    with pytest.raises(ValueError, match="another schema"):
        resolve_message(schema, Gather(other, other.columns), b"")
