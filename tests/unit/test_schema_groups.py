"""Stored features in a schema: what is refused and why, and what is compiled."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import SchemaError
from fastpath.schema import FallbackLimits, FeatureSpec, Gather, GroupSpec, Schema
from fastpath.spec import describe_difference, group_fingerprint

INT64_MAX = 2**63 - 1
CUSTOMER = GroupSpec("customer", "customer", (("n_day", "numeric"), ("foreign", "boolean")))
STORED = FeatureSpec("n_day", "numeric", source="customer")

REFUSED_FEATURES: list[tuple[dict[str, Any], str]] = [
    (
        {"source": "costumer"},
        r"its source 'costumer' is not a declared group \(customer\)",
    ),
    ({"source": "request", "ttl_s": 1.0}, "'n_day' comes from the request: only a stored one"),
    ({"source": "request", "column": "a"}, "only a stored one has a column"),
    ({"column": "n_week"}, "'n_day': group 'customer' has no column 'n_week'"),
    ({"name": "n_week"}, "'n_week': group 'customer' has no column 'n_week'"),
    ({"type": "boolean"}, "'n_day' is boolean, but column 'n_day' of group 'customer' is numeric"),
    ({"ttl_s": 0.0}, "'n_day': ttl_s is 0.0; it is at least 0.001"),
    ({"ttl_s": -5.0}, "'n_day': ttl_s is -5.0"),
    ({"on_range": "clip"}, "'n_day': on_range 'clip' needs a numeric feature with a minimum or"),
    ({"on_range": "drop"}, "'n_day': on_range 'drop' is unknown"),
    ({"column": "foreign", "type": "boolean", "on_range": "reject"}, "on_range 'reject' needs a"),
]
REFUSED_GROUPS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "group '': a group's name is 1 to 64"),
    ({"name": "a:b"}, "group 'a:b': a group's name is"),
    ({"name": "x" * 65}, "a group's name is"),
    ({"name": "a\n"}, "a group's name is"),
    ({"name": "request"}, "group 'request': the name means 'not stored'"),
    ({"entity": ""}, "group 'customer': it names no entity type"),
    ({"entity": "e" * 257}, "group 'customer': entity has 257 bytes"),
    ({"role": "\ud800"}, "group 'customer': role .* is not valid Unicode"),
    ({"columns": ()}, "group 'customer': 0 columns: a record has 1 to 1024"),
    (
        {"columns": (("a", "numeric"), ("a", "numeric"))},
        "'customer': column 'a' stands twice",
    ),
    ({"columns": (("a", "text"),)}, "group 'customer': column 'a': type 'text' is unknown"),
    ({"columns": (("", "numeric"),)}, "group 'customer': column 0 has no name: every column needs"),
    ({"online": False, "batch": False}, "group 'customer': it has neither an online nor a batch"),
    ({"ttl_s": 0.0}, "group 'customer': ttl_s is 0.0"),
    ({"ttl_s": math.nan}, "group 'customer': ttl_s is nan"),
    ({"batch_max_age_s": -1.0}, "group 'customer': batch_max_age_s is -1.0"),
    ({"read_budget_us": 0}, "group 'customer': read_budget_us is 0; .* from 1 to 10,000,000"),
    ({"read_budget_us": 10_000_001}, "read_budget_us is 10000001"),
    ({"read_budget_us": 1.5}, "read_budget_us is 1.5"),
]
REFUSED_LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"degrade_over": -1}, "fallback limit 'degrade': -1 is not a number of features"),
    ({"reject_over": 1.5}, "fallback limit 'reject': 1.5 is not a number"),
    ({"degrade_features": ("x",)}, "fallback limit 'degrade' names 'x', which is not a feature"),
    ({"reject_features": ("n_day", "n_day")}, "fallback limit 'reject' names 'n_day' twice"),
]


@pytest.mark.parametrize(("changes", "text"), REFUSED_FEATURES, ids=range(len(REFUSED_FEATURES)))
def test_refused_features(changes: dict[str, Any], text: str) -> None:
    used = FeatureSpec("x", "boolean", source="customer", column="foreign")
    if changes.get("column") == "foreign":
        used = FeatureSpec("x", "numeric", source="customer", column="n_day")
    with pytest.raises(SchemaError, match=text):
        Schema([STORED._replace(**changes), used], [CUSTOMER])


@pytest.mark.parametrize(("changes", "text"), REFUSED_GROUPS, ids=range(len(REFUSED_GROUPS)))
def test_refused_groups(changes: dict[str, Any], text: str) -> None:
    group = CUSTOMER._replace(**changes)
    with pytest.raises(SchemaError, match=text):
        Schema([STORED._replace(source=group.name)], [group])


@pytest.mark.parametrize(("changes", "text"), REFUSED_LIMITS, ids=range(len(REFUSED_LIMITS)))
def test_refused_limits(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        Schema([STORED], [CUSTOMER], FallbackLimits(**changes))


def test_refused_together() -> None:
    with pytest.raises(SchemaError, match=r"not a declared group \(none\)"):
        Schema([STORED])
    with pytest.raises(SchemaError, match="group 'customer' is declared twice"):
        Schema([STORED], [CUSTOMER, CUSTOMER])
    with pytest.raises(SchemaError, match="group 'customer': no feature is read from it"):
        Schema([FeatureSpec("a", "numeric")], [CUSTOMER])
    with pytest.raises(SchemaError, match="'n_day' and 'again' both read column 'n_day' of group"):
        Schema([STORED, FeatureSpec("again", "numeric", source="customer", column="n_day")],
               [CUSTOMER])  # fmt: skip
    groups = [CUSTOMER._replace(name=f"g{i}") for i in range(9)]
    specs = [STORED._replace(name=f"f{i}", column="n_day", source=f"g{i}") for i in range(9)]
    with pytest.raises(SchemaError, match="9 groups: a schema has at most 8"):
        Schema(specs, groups)
    assert len(Schema(specs[:8], groups[:8]).compiled_groups()) == 8


def test_everything_is_compiled() -> None:
    groups = (
        GroupSpec(
            "terminal", "shop", (("risk", "numeric"),),
            online=False, batch_max_age_s=90_000.0, read_budget_us=250,
        ),
        CUSTOMER._replace(role="payer", ttl_s=60.0, batch=False),
    )  # fmt: skip
    specs = (
        FeatureSpec("amount", "numeric", minimum=0.0, on_range="reject"),
        FeatureSpec("home", "boolean", source="customer", column="foreign", ttl_s=0.0015),
        FeatureSpec("risk", "numeric", source="terminal", maximum=1.0, on_range="clip"),
        FeatureSpec("n_day", "numeric", source="customer", required=True),
    )
    limits = FallbackLimits(2, ("risk",), 3, ("home", "amount"))
    schema = Schema(iter(specs), iter(groups), limits)
    assert (schema.specs, schema.groups, schema.limits) == (specs, groups, limits)
    assert schema.request_columns == (("amount", "numeric"),)
    terminal, customer = schema.compiled_groups()
    assert terminal == {
        "key": (b"terminal", b"shop", b""),
        "fingerprint": group_fingerprint("terminal", [("risk", "numeric")]),
        "has_online": False,
        "has_batch": True,
        "batch_max_age_ms": 90_000_000,
        "budget_ns": 250_000,
        "members": [2],
        "ttl_ms": [INT64_MAX],
    }
    assert customer["key"] == (b"customer", b"customer", b"payer")
    assert (customer["members"], customer["ttl_ms"]) == ([1, 3], [2, 60_000])
    assert (customer["has_batch"], customer["batch_max_age_ms"]) == (False, INT64_MAX)
    assert schema.compiled_rules() == {
        "group": [-1, 1, 0, 1],
        "on_range": [2, 0, 1, 0],
        "degrades": [0, 0, 1, 0],
        "rejects": [1, 1, 0, 0],
        "degrade_over": 2,
        "reject_over": 3,
        "has_limits": True,
        "has_rules": True,
    }


def test_a_schema_without_groups_has_none_of_it() -> None:
    schema = Schema([FeatureSpec("a", "numeric", maximum=1.0)])
    rules = schema.compiled_rules()
    assert (rules["has_limits"], rules["has_rules"], rules["group"]) == (False, False, [-1])
    assert rules["degrade_over"] == rules["reject_over"] == 1024, "no row has more features"
    assert schema.request_columns == schema.columns
    assert Schema([STORED], [CUSTOMER]).request_columns == ()


@given(st.floats(0.001, 1e300))
def test_ages_are_whole_milliseconds_and_never_wrap(seconds: float) -> None:
    schema = Schema([STORED], [CUSTOMER._replace(ttl_s=seconds)])
    [ttl_ms] = schema.compiled_groups()[0]["ttl_ms"]
    assert ttl_ms == INT64_MAX or abs(ttl_ms - seconds * 1000) <= 0.5 + seconds * 1e-12
    assert (ttl_ms == INT64_MAX) == (seconds >= 2**53 / 1000)


def test_the_own_layout_does_not_depend_on_where_features_come_from() -> None:
    stored = Schema([FeatureSpec("a", "numeric"), STORED], [CUSTOMER])
    plain = Schema([FeatureSpec("a", "numeric"), FeatureSpec("n_day", "numeric")])
    assert stored.fingerprint == plain.fingerprint


def test_a_layout_may_lack_a_required_feature_that_is_stored() -> None:
    specs = [FeatureSpec("a", "numeric", required=True), STORED._replace(required=True)]
    schema = Schema(specs, [CUSTOMER])
    assert Gather(schema, schema.request_columns).column_of == [0, -1]
    with pytest.raises(SchemaError, match="lacks the required feature 'a'"):
        Gather(schema, [("n_day", "numeric")])
    with pytest.raises(SchemaError, match="has feature 'n_day' as boolean"):
        Gather(schema, [("a", "numeric"), ("n_day", "boolean")])


# ------------------------------------------------------ differences in words

WANT = [("amount", "boolean"), ("risk", "numeric"), ("age", "numeric")]


@pytest.mark.parametrize(
    ("have", "words"),
    [
        (WANT, ""),
        (WANT[:1] + WANT[2:], "lacks risk"),
        ([*WANT, ("colour", "numeric")], "has colour, which the schema does not"),
        ([("amount", "numeric"), *WANT[1:]], "amount is numeric there and boolean here"),
        (WANT[::-1], "order differs"),
        (
            [("age", "numeric"), ("colour", "numeric"), ("amount", "numeric")],
            (
                "lacks risk; has colour, which the schema does not; "
                "amount is numeric there and boolean here; order differs"
            ),
        ),
        (
            [(f"feature_{i}", "numeric") for i in range(20)],
            (
                "lacks amount, risk, age; "
                "has feature_0, feature_1, feature_2 and 17 more, which the schema does not"
            ),
        ),
    ],
)
def test_differences(have: list[tuple[str, str]], words: str) -> None:
    assert describe_difference(have, WANT) == words


COLUMNS = st.lists(
    st.tuples(st.text(min_size=1, max_size=90), st.sampled_from(["numeric", "boolean"])),
    min_size=1, max_size=30, unique_by=lambda column: column[0],
)  # fmt: skip


@given(COLUMNS, COLUMNS)
def test_differences_are_short_and_empty_only_for_equals(
    have: list[tuple[str, str]], want: list[tuple[str, str]]
) -> None:
    words = describe_difference(have, want)
    assert len(words.encode()) <= 160
    assert (words == "") == (have == want)
    assert not words.startswith(";")
