"""Feature schemas: what is refused and why, look-ups, fingerprints, gathers."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import SchemaError
from fastpath.schema import FeatureSpec, Gather, Schema, layout_fingerprint

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1, max_size=20)
INF = math.inf

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "feature 0 has no name"),
    ({"name": "a\0b"}, r"'a\\x00b': a name cannot hold a NUL"),
    ({"name": "a\nb"}, "a name cannot hold a NUL or a line break"),
    ({"name": "\ud800"}, "is not valid Unicode"),
    ({"name": "n" * 257}, "has 257 bytes, at most 256"),
    ({"type": "text"}, "'f': type 'text' is unknown"),
    ({"minimum": 2.0, "maximum": 1.0}, "'f': minimum 2.0 is above maximum 1.0"),
    ({"minimum": math.nan}, "'f': minimum nan is not a finite"),
    ({"maximum": 1e300}, "'f': maximum 1e.300 is not a finite"),
    ({"minimum": INF}, "'f': minimum inf is not a finite"),
    ({"maximum": -INF}, "'f': maximum -inf is not a finite"),
    ({"default": INF}, "'f': default inf is not a finite"),
    ({"default": 1e39}, "'f': default 1e.39 is not a finite"),
    ({"default": 3.0, "maximum": 2.0}, "'f': default 3.0 is outside -inf to 2.0"),
    ({"vocabulary": ("a",)}, "'f' is numeric: only a categorical"),
    ({"source": ""}, "'f': the source is empty"),
    ({"type": "boolean", "default": 0.5}, "'f': default 0.5 is not 0, 1 or NaN"),
    ({"type": "boolean", "minimum": 0.0}, "'f' is boolean: only a numeric feature has a range"),
    ({"type": "categorical"}, "'f' is categorical: its vocabulary is empty"),
    ({"type": "categorical", "vocabulary": ("a", "b", "a")}, "'f': 'a' stands twice"),
    ({"type": "categorical", "vocabulary": ("\udfff",)}, "'f': .* is not valid Unicode"),
    ({"type": "categorical", "vocabulary": (1,)}, "'f': vocabulary value 1 is not a text"),
    ({"type": "categorical", "vocabulary": ("a",), "default": 1.0}, "'f': default 1.0 is not a"),
    ({"type": "categorical", "vocabulary": ("a", "b"), "default": 0.5}, r"a code .*\(0 to 1\)"),
]


def numeric(*names: str) -> list[FeatureSpec]:
    """Return optional numeric features."""
    return [FeatureSpec(name, "numeric") for name in names]


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_the_feature(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        Schema([FeatureSpec("f", "numeric")._replace(**changes)])


def test_names_are_unique() -> None:
    with pytest.raises(SchemaError, match="'b' stands twice, at 1 and 3"):
        Schema(numeric("a", "b", "c", "b"))


@pytest.mark.parametrize("n", [0, 1025])
def test_number_of_features(n: int) -> None:
    with pytest.raises(SchemaError, match=f"{n} features: a schema has 1 to 1024"):
        Schema(numeric(*(f"f{i}" for i in range(n))))
    assert Schema(numeric(*(f"f{i}" for i in range(1024)))).n_features == 1024


@pytest.mark.parametrize(
    "spec",
    [
        FeatureSpec("f", "numeric", default=0.1, minimum=0.1, maximum=0.1),
        FeatureSpec("f", "numeric", required=True, maximum=9.0, on_range="clip"),
        FeatureSpec("f", "boolean", default=1.0),
        FeatureSpec("f", "categorical", default=1.0, vocabulary=("", "b")),
        FeatureSpec("f" * 256, "categorical", default=math.nan, vocabulary=("a",)),
    ],
)
def test_accepted(spec: FeatureSpec) -> None:
    schema = Schema([spec])
    assert schema.specs == (spec,)
    assert schema.columns == ((spec.name, spec.type),)


@given(st.lists(NAMES, min_size=1, max_size=60, unique=True), st.lists(NAMES, max_size=20))
def test_every_name_is_found_and_no_other(names: list[str], others: list[str]) -> None:
    schema = Schema(numeric(*names))
    assert [schema.index(name) for name in names] == list(range(len(names)))
    for other in others:
        assert schema.index(other) == (names.index(other) if other in names else -1)
    assert schema.index("") == -1


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, unique=True))
def test_every_vocabulary_text_has_its_code(vocabulary: list[str]) -> None:
    schema = Schema([FeatureSpec("f", "categorical", vocabulary=tuple(vocabulary))])
    assert [schema.code(0, text) for text in vocabulary] == list(range(len(vocabulary)))
    assert schema.code(0, "".join(vocabulary) + "?") == -1


def test_full_tables() -> None:
    names = [f"customer_id_nb_tx_{i}day_window" for i in range(1024)]
    schema = Schema(numeric(*names))
    assert [schema.index(name) for name in names] == list(range(1024))
    vocabulary = tuple(str(i) for i in range(70_000))
    schema = Schema([FeatureSpec("f", "categorical", vocabulary=vocabulary)])
    assert [schema.code(0, text) for text in vocabulary[::7]] == list(range(0, 70_000, 7))


def test_code_wants_a_categorical_feature() -> None:
    schema = Schema(numeric("amount"))
    with pytest.raises(SchemaError, match="'amount' is not categorical"):
        schema.code(0, "x")
    with pytest.raises(SchemaError, match="feature 1: the schema has 1"):
        schema.code(1, "x")


def test_fingerprint_is_what_the_proto_page_says() -> None:
    columns = [("amount", "numeric"), ("pays_à_terme", "boolean")]
    text = "amount\0numeric\npays_à_terme\0boolean\n"
    expected = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    assert layout_fingerprint(columns) == expected
    assert Schema([FeatureSpec("amount", "numeric"), FeatureSpec("pays_à_terme", "boolean")]) \
        .fingerprint == expected  # fmt: skip
    assert layout_fingerprint(columns[::-1]) != expected
    assert layout_fingerprint([("amount", "numeric"), ("pays_à_terme", "numeric")]) != expected


def test_a_schema_is_whole_and_immutable() -> None:
    schema = Schema(numeric("a"))
    schema.__init__(numeric("b"))  # type: ignore[misc]
    assert (schema.index("a"), schema.index("b")) == (0, -1)
    with pytest.raises(TypeError):
        Schema.__new__(Schema)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Gather.__new__(Gather)  # type: ignore[call-arg]


@given(st.data())
def test_a_gather_finds_columns_by_name(data: st.DataObject) -> None:
    pool = [f"f{i}" for i in range(12)]
    own = data.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    layout = data.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    gather = Gather(Schema(numeric(*own)), [(name, "numeric") for name in layout])
    assert gather.column_of == [layout.index(n) if n in layout else -1 for n in own]
    assert gather.identity == (own == layout)
    assert gather.n_columns == len(layout)
    assert gather.fingerprint == layout_fingerprint(gather.columns)


def test_a_gather_refuses_what_the_schema_cannot_read() -> None:
    schema = Schema([FeatureSpec("a", "numeric", required=True), FeatureSpec("b", "boolean")])
    with pytest.raises(SchemaError, match="lacks the required feature 'a'"):
        Gather(schema, [("b", "boolean")])
    with pytest.raises(SchemaError, match="has feature 'b' as numeric, the schema as boolean"):
        Gather(schema, [("a", "numeric"), ("b", "numeric")])
    with pytest.raises(SchemaError, match="'a' stands twice"):
        Gather(schema, [("a", "numeric"), ("a", "numeric")])
    with pytest.raises(SchemaError, match="type 'date' is unknown"):
        Gather(schema, [("a", "numeric"), ("z", "date")])
    with pytest.raises(SchemaError, match="0 features"):
        Gather(schema, [])
