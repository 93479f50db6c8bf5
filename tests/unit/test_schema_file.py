"""schema.json with stored features, `--defaults` files of both forms, and `scoregate schema`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from fastpath.schema import FallbackLimits, FeatureSpec, GroupSpec, Schema
from fastpath.spec import layout_fingerprint
from server.bundle import read_bundle
from server.bundle.compatibility import compare
from server.bundle.manifest import encode
from server.bundle.schema import (
    SchemaFile,
    compile_schema,
    decode_schema,
    fallback_entry,
    fallback_limits,
    group_entry,
    group_specs,
    requirements,
)
from server.bundle.schema_tables import format_age
from server.cli.schema import schema as command
from server.errors import BundleError, InputError
from server.export import ExportOptions, FeatureOptions, export_model
from server.export.options import read_feature_file
from tests.support.models import fitted, make_data

DOC = Path(__file__).parents[2] / "docs" / "features.md"
EXAMPLE, EXPORT_EXAMPLE = re.findall(r"```json\n(.*?)```", DOC.read_text(), re.DOTALL)


def document(**changes: Any) -> dict[str, Any]:
    """Return the page's schema.json with other top-level members."""
    return {**json.loads(EXAMPLE), **changes}


def decoded(plain: dict[str, Any]) -> SchemaFile:
    return decode_schema(json.dumps(plain).encode(), "schema.json")


def test_the_pages_example_is_compiled() -> None:
    schema = compile_schema(decoded(document()))
    assert [spec.source for spec in schema.specs] == [
        *("request", "request", "customer", "customer", "terminal")
    ]
    customer, terminal = schema.groups
    assert (customer.role, customer.ttl_s, customer.batch_max_age_s) == ("payer", 172800, math.inf)
    assert customer.read_budget_us == 3000
    assert f"{customer.fingerprint:#018x}" in DOC.read_text(), "the worked example is this group"
    assert terminal.columns == (("terminal_risk", "numeric"),), "left out: its features"
    assert (terminal.online, terminal.batch) == (False, True)
    assert schema.limits == FallbackLimits(1, (), None, ("terminal_risk",))
    rules = schema.compiled_rules()
    assert rules["on_range"] == [2, 0, 0, 0, 1]
    assert [group["ttl_ms"] for group in schema.compiled_groups()] == [
        [3_600_000, 172_800_000],
        [2**63 - 1],
    ]


def test_a_schema_of_before_groups_reads_on_and_is_written_as_before() -> None:
    old = {"features": [{"name": "a", "type": "numeric", "default": 1.0, "maximum": 2.0}]}
    schema = decoded(old)
    assert json.loads(encode(schema)) == old
    assert requirements(schema) == []
    assert compile_schema(schema).groups == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": []}, "'customer_n_day': its source 'customer' is not a declared group"),
        ({"groups": [{"name": "customer"}]}, "missing required field `entity`"),
        ({"fallback": {"degrade": {"over": 1}}}, "unknown field `over`"),
        ({"fallback": {"degrade": {"more_than": -1}}}, r"\$.fallback.degrade.more_than"),
        ({"fallback": {"reject": {"features": ["x"]}}}, "'reject' names 'x', which is not"),
    ],
)
def test_schema_files_that_cannot_be_used(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        decoded(document(**changes))
    assert str(caught.value).startswith("schema.json: ")


AGES = st.one_of(st.just(math.inf), st.floats(0.001, 1e9))
GROUPS = st.builds(
    GroupSpec,
    name=st.just("g"), entity=st.text("abc", min_size=1), columns=st.just((("f", "numeric"),)),
    role=st.text("abc"), online=st.just(True), batch=st.booleans(), ttl_s=AGES,
    batch_max_age_s=AGES, read_budget_us=st.integers(1, 10_000_000),
)  # fmt: skip
LIMITS = st.builds(
    FallbackLimits,
    *[st.none() | st.integers(0, 2000), st.sampled_from([(), ("f",)])] * 2,
)


@given(GROUPS, LIMITS)
def test_groups_and_limits_survive_the_file(group: GroupSpec, limits: FallbackLimits) -> None:
    plain = json.loads(
        encode({"features": [{"name": "f", "type": "numeric", "source": "g"}],
                "groups": [group_entry(group)], "fallback": fallback_entry(limits)})
    )  # fmt: skip
    schema = decoded(plain)
    assert group_specs(schema) == [group]
    assert fallback_limits(schema) == limits


def test_what_a_program_must_know_to_serve_it() -> None:
    assert requirements(decoded(document())) == [
        *("feature-groups", "range-rules", "fallback-limits")
    ]
    assert requirements(decoded(document(fallback={}))) == ["feature-groups", "range-rules"]


# ------------------------------------------------------------------- export


def test_defaults_files_of_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"groups": {"default": 1, "required": true}}')
    short = read_feature_file(path)
    assert short.features == {"groups": FeatureOptions(default=1, required=True)}
    assert (short.groups, short.fallback) == ((), FallbackLimits())
    path.write_text(EXPORT_EXAMPLE)
    long = read_feature_file(path)
    assert long.features["customer_n_day"] == FeatureOptions(
        source="customer", column="n_day", ttl_s=3600, default=1
    )
    assert long.groups == [GroupSpec("customer", "customer", ())]
    assert long.fallback == FallbackLimits(degrade_over=3)
    for text, words in (
        ('{"groups": [], "feature": {}}', "unknown field `feature`"),
        ('{"a": {"sauce": "customer"}}', "unknown field `sauce`"),
        ('{"groups": [{"name": "g"}]}', "entity"),
        ("[", "d.json: "),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_feature_file(path)


def stored_export(out: Path, **options: Any) -> Path:
    """Export a small model, three of whose features come from two groups."""
    data = make_data()
    export_model(
        fitted(), data.frame, data.y, data.frame, data.y, out=out,
        options=ExportOptions(
            features={
                "f0": FeatureOptions(source="customer", column="n_day", ttl_s=60),
                "f1": FeatureOptions(source="customer"),
                "f2": FeatureOptions(source="terminal", minimum=-3, maximum=3, on_range="clip"),
            },
            groups=[
                GroupSpec("customer", "customer", (), ttl_s=3600.0),
                GroupSpec("terminal", "terminal", (("f2", "numeric"), ("x", "numeric"))),
            ],
            fallback=FallbackLimits(degrade_over=1, reject_features=("f2",)),
            **options,
        ),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def stored_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_export(tmp_path_factory.mktemp("repository") / "fraud" / "1")


def test_an_export_with_stored_features(stored_bundle: Path) -> None:
    bundle = read_bundle(stored_bundle)
    assert bundle.manifest.requires == ["feature-groups", "range-rules", "fallback-limits"]
    schema = compile_schema(bundle.schema)
    assert schema.groups[0].columns == (("n_day", "numeric"), ("f1", "numeric"))
    assert schema.groups[1].columns == (("f2", "numeric"), ("x", "numeric"))
    assert schema.specs[0].ttl_s == 60
    assert schema.limits == FallbackLimits(1, (), None, ("f2",))


def test_what_selection_leaves_out_the_schema_leaves_out(tmp_path: Path) -> None:
    bundle = read_bundle(stored_export(tmp_path / "m" / "1", select_features=1))
    [feature] = bundle.schema.features
    assert [group.name for group in bundle.schema.groups] == (
        [] if feature.source == "request" else [feature.source]
    )
    kept = ("f2",) if feature.name == "f2" else ()
    assert fallback_limits(bundle.schema) == FallbackLimits(1, (), None, kept)


def test_an_export_whose_groups_do_not_fit_is_refused(tmp_path: Path) -> None:
    data = make_data()
    for options, words in (
        (ExportOptions(features={"f0": FeatureOptions(source="g")}), "'g' is not a declared group"),
        (ExportOptions(groups=[GroupSpec("g", "e", ())]), "group 'g': 0 columns"),
        (ExportOptions(groups=[GroupSpec("g", "e", (), ttl_s=math.nan)]), "'g': ttl_s is nan"),
        (
            ExportOptions(features={"f0": FeatureOptions(source="g", ttl_s=math.inf)}),
            "f0: ttl_s inf is not a number of seconds",
        ),
    ):
        with pytest.raises(InputError, match=f"--defaults: .*{words}"):
            export_model(
                fitted(), data.frame, data.y, data.frame, data.y,
                out=tmp_path / "m" / "1", options=options,
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------- comparison


def test_what_a_newcomer_reads_of_what_serves() -> None:
    serving = compile_schema(decoded(document()))
    assert compare(serving, serving).compatible
    assert not compare(serving, serving).differences
    plain = document()
    plain["features"][1]["vocabulary"] = ["web", "phone"]
    plain["features"][3]["default"] = 1
    plain["features"].append({"name": "tip", "type": "numeric", "required": True})
    plain["groups"][0]["columns"].pop(2)
    plain["groups"][1] |= {"name": "shop", "ttl_s": 5}
    plain["features"][4]["source"] = "shop"
    found = compare(compile_schema(decoded(plain)), serving)
    assert not found.compatible
    whole, request, customer = found.readings
    assert "lacks the required feature 'tip'" in whole.refusal
    assert "lacks the required feature 'tip'" in request.refusal
    assert (whole.fingerprint, request.fingerprint) == (
        serving.fingerprint,
        layout_fingerprint(serving.request_columns),
    )
    assert customer.readable
    assert customer.difference == "has channel, which the schema does not"
    assert customer.fingerprint == serving.groups[0].fingerprint
    assert found.conflicts == [
        (
            "feature 'channel': code 1 of its vocabulary is 'pos' there and 'phone' here; one "
            "model cannot serve both: give the feature a new name"
        )
    ]
    assert found.differences == [
        "group 'terminal' is there only",
        "group 'shop' is here only",
        "feature 'customer_foreign': default 0 there and 1 here",
        "feature 'terminal_risk': source terminal there and shop here",
    ]


def test_records_of_another_type_are_not_read() -> None:
    def one(kind: Any) -> Schema:
        columns = (("a", kind),)
        return Schema([FeatureSpec("a", kind, source="g")], [GroupSpec("g", "e", columns)])

    _, records = compare(one("boolean"), one("numeric")).readings
    assert not records.readable
    assert "hold feature 'a' as numeric, the schema as boolean" in records.refusal


# ------------------------------------------------------------- command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(EXAMPLE)
    return path


def test_check_says_what_was_checked(example: Path, stored_bundle: Path) -> None:
    done = run("check", example, stored_bundle)
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{example}: ok: 5 features, 3 of them stored (groups customer, ter")
    assert second.startswith(f"{stored_bundle}: ok: 6 features, 3 of them stored")


def test_check_goes_on_after_a_problem(example: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document(groups=[])))
    done = run("check", bad, tmp_path / "none", tmp_path, example)
    assert done.exit_code == 2
    assert f"{example}: ok" in done.stdout
    one, two, three = done.stderr.splitlines()
    assert one.startswith(f"scoregate: {bad}: feature 'customer_n_day': its source")
    assert two == f"scoregate: {tmp_path / 'none'}: cannot be read: No such file or directory"
    assert "manifest.json: the file is missing" in three


def test_check_verifies_the_whole_bundle(tmp_path: Path) -> None:
    bundle = stored_export(tmp_path / "m" / "1")
    (bundle / "golden.npz").write_bytes(b"changed")
    done = run("check", bundle)
    assert done.exit_code == 2
    assert "golden.npz" in done.stderr
    assert run("show", bundle).exit_code == 0, "showing reads schema.json alone"


def test_check_against_what_serves(example: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.json"
    plain = document()
    plain["features"].append({"name": "tip", "type": "numeric"})
    newer.write_text(json.dumps(plain))
    done = run("check", newer, "--against", example)
    assert done.exit_code == 0
    assert f"the whole layout of {example} (0x" in done.stdout
    assert "readable: lacks tip" in done.stdout
    assert "the records of group 'terminal'" in done.stdout
    plain["features"][-1]["required"] = True
    newer.write_text(json.dumps(plain))
    done = run("check", newer, "--against", example)
    assert done.exit_code == 2
    assert "NOT readable: layout" in done.stdout


def test_show_in_tables_and_as_json(example: Path) -> None:
    schema = compile_schema(decoded(document()))
    shown = run("show", example).stdout
    for text in (
        "customer as payer", "customer:<customer id>", "25 h", "3,000 µs", "clip", "1 h", "2 d",
        *(f"{group.fingerprint:#018x}" for group in schema.groups),
        f"{schema.fingerprint:#018x}", f"{layout_fingerprint(schema.request_columns):#018x}",
        "refused when one of these falls back",
    ):  # fmt: skip
        assert text in shown, text
    plain = json.loads(run("show", example, "--json").stdout)
    assert [f["ttl_s"] for f in plain["features"]] == [None, None, 3600, 172800, None]
    assert [f["column"] for f in plain["features"]] == [
        *(None, None, "n_day", "foreign", "terminal_risk")
    ]
    assert [g["record_bytes"] for g in plain["groups"]] == [28, 20]
    assert plain["groups"][0]["fingerprint"] == f"{schema.groups[0].fingerprint:#018x}"
    assert [len(layout["columns"]) for layout in plain["layouts"]] == [5, 2]


def test_ages_in_words() -> None:
    ages = (0.5, 1, 90, 60, 5400, 3600, 86_400, 172_800, math.inf, math.nan)
    assert [format_age(age) for age in ages] == [
        *("0.5 s", "1 s", "90 s", "1 min", "90 min", "1 h", "1 d", "2 d", "–", "–")
    ]
