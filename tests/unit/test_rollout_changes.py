"""Changes of what serves: the laws of weights, tables, names and notes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout import changes
from server.rollout.attributes import MAX_KEY_BYTES, MAX_OVERRIDES
from server.rollout.changes import ArmSource
from server.rollout.split import in_proportion
from server.rollout.state import (
    ArmState,
    ModelState,
    PlanState,
    ThresholdState,
    decode_state,
    encode_state,
    pack_table,
    unpack_table,
)

OWN = (("review", -1.5, 0.18), ("block", 0.25, 0.56))


def source(version: str) -> ArmSource:
    return ArmSource(version, version.encode().hex().ljust(64, "0")[:64], OWN)


def plan(*versions: str, weights: tuple[int, ...] = (), model: str = "fraud") -> PlanState:
    """A plan of one model: the first version is the champion, the others joined it."""
    state = changes.initial({model: source(versions[0])}).state
    for version in versions[1:]:
        state = changes.deploy(state, model, source(version), 0).state
    if weights:
        state = changes.set_traffic(state, model, dict(zip(versions, weights, strict=True))).state
    return state


def only(state: PlanState) -> ModelState:
    (model,) = state.models
    return model


def weights_of(state: PlanState) -> dict[str, int]:
    return {arm.version: arm.weight_basis_points for arm in only(state).arms}


def owners(state: PlanState) -> np.ndarray:
    """The version of each bucket, read without the code under test."""
    model = only(state)
    versions = np.array([arm.version for arm in model.arms])
    return versions[np.frombuffer(unpack_table(model.table), np.uint8)]


def check_state(state: PlanState) -> None:
    """What holds of every state that comes out of a change."""
    assert [model.name for model in state.models] == sorted({m.name for m in state.models})
    assert state.default_model in {model.name for model in state.models}
    for model in state.models:
        table = unpack_table(model.table)
        weights = [arm.weight_basis_points for arm in model.arms]
        assert sum(weights) == 10_000
        assert [table.count(i) for i in range(256)] == weights + [0] * (256 - len(weights))
        assert len({arm.name for arm in model.arms}) == len(model.arms) >= 1
        assert {*model.overrides.values()} <= {arm.name for arm in model.arms}
    assert decode_state(encode_state(state)) == state


def check_moves(before: PlanState, after: PlanState) -> None:
    """The fewest buckets moved, and no arm that grew gave one away."""
    old, new = owners(before), owners(after)
    was, now = weights_of(before), weights_of(after)
    grown = {v: now[v] - was.get(v, 0) for v in now if now[v] > was.get(v, 0)}
    moved = old != new
    assert moved.sum() == sum(grown.values()) == changes.n_buckets_moved(before, after)
    assert set(new[moved]) <= set(grown)
    assert not {*old[moved]} & {*grown}


@st.composite
def splits(draw: st.DrawFn, n: int) -> tuple[int, ...]:
    """Weights of `n` arms; zeros are likely."""
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=n - 1, max_size=n - 1)))
    return tuple(b - a for a, b in itertools.pairwise([0, *cuts, 10_000]))


# ------------------------------------------------------------------- the laws


@given(st.data())
@settings(max_examples=60)
def test_any_sequence_of_changes_keeps_weights_and_tables_in_agreement(data: st.DataObject) -> None:
    state = plan("v0")
    fresh = itertools.count(1)
    for _ in range(data.draw(st.integers(1, 8))):
        arms = [arm.name for arm in only(state).arms]
        verb = data.draw(st.sampled_from(["deploy", "traffic", "retire", "promote", "pin"]))
        before = state
        if verb == "deploy" and len(arms) < 6:
            share = data.draw(st.integers(0, 10_000))
            version = f"v{next(fresh)}"
            state = changes.deploy(state, "", source(version), share).state
            assert weights_of(state)[version] == share
        elif verb == "traffic":
            weights = data.draw(splits(len(arms)))
            state = changes.set_traffic(state, "", dict(zip(arms, weights, strict=True))).state
            assert tuple(weights_of(state).values()) == weights
        elif verb == "pin":
            arm = data.draw(st.sampled_from(arms))
            state = changes.set_overrides(state, "", {data.draw(st.text(min_size=1)): arm}).state
        elif verb in ("retire", "promote"):
            arm = data.draw(st.sampled_from(arms))
            change = changes.retire if verb == "retire" else changes.promote
            try:
                state = change(state, "", arm).state
            except ChangeError:
                assert verb == "retire"
                assert len(arms) != 2
        check_state(state)
        check_moves(before, state)
        assert state.generation == before.generation


@given(data=st.data(), n=st.integers(1, 6), share=st.integers(0, 10_000))
@settings(max_examples=60)
def test_deploy_gives_the_newcomer_its_share_and_scales_the_others(
    data: st.DataObject, n: int, share: int
) -> None:
    weights = data.draw(splits(n))
    before = plan(*(f"v{i}" for i in range(n)), weights=weights)
    after = changes.deploy(before, "", source("new"), share).state
    *others, newcomer = weights_of(after).values()
    assert newcomer == share
    quotas = [Fraction(weight * (10_000 - share), 10_000) for weight in weights]
    # The largest remainder, as Hamilton's method is usually told: floors, then one more to each of
    # the largest fractions; ties go to the first.
    expected = [int(quota) for quota in quotas]
    while sum(expected) < 10_000 - share:
        i = max(range(n), key=lambda i: (quotas[i] - expected[i], -i))
        expected[i] += 1
    assert others == expected
    check_moves(before, after)
    assert changes.n_buckets_moved(before, after) == share


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=255), st.integers(0, 10_000))
def test_shares_in_proportion_add_up_and_stay_within_one_of_their_quota(
    weights: list[int], total: int
) -> None:
    if not any(weights):
        weights[0] = 1
    shares = in_proportion(weights, total)
    assert sum(shares) == total
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share - Fraction(weight * total, sum(weights))) < 1
        assert weight or not share


@given(st.integers(0, 9_999), st.data())
@settings(max_examples=30)
def test_raising_an_arm_moves_nobody_of_its_own_away(low: int, data: st.DataObject) -> None:
    high = data.draw(st.integers(low + 1, 10_000))
    before = plan("a", "b", weights=(10_000 - low, low))
    after = changes.set_traffic(before, "", {"a": 10_000 - high, "b": high}).state
    assert {*np.flatnonzero(owners(before) == "b")} <= {*np.flatnonzero(owners(after) == "b")}
    assert changes.n_buckets_moved(before, after) == high - low


# ------------------------------------------------------------------ beginning


def test_a_first_plan_has_champions_by_name() -> None:
    sources = {"b": source("2"), "a": source("1")}
    state = changes.initial(sources, "b").state
    check_state(state)
    assert state.generation == 0
    assert [(m.name, m.salt, m.arms[0].name) for m in state.models] == [
        ("a", "a", "champion"),
        ("b", "b", "champion"),
    ]
    assert changes.initial({"a": source("1")}).state.default_model == "a"


@pytest.mark.parametrize(
    ("models", "default", "message"),
    [
        ({}, "", "at least one model"),
        ({"a": source("1"), "b": source("1")}, "", "which of a, b"),
        ({"a": source("1")}, "c", "'c' is not among .*: a"),
        ({"../a": source("1")}, "../a", "'../a' is not a name"),
        ({"a": source("1\n")}, "a", "not a name"),
    ],
)
def test_a_first_plan_needs_models_and_a_default(
    models: Mapping[str, ArmSource], default: str, message: str
) -> None:
    with pytest.raises(ChangeError, match=message):
        changes.initial(models, default)


# --------------------------------------------------------------------- deploy


def test_newcomers_are_numbered_canaries_with_the_bundles_thresholds() -> None:
    state = plan("1", "2", "3")
    assert [arm.name for arm in only(state).arms] == ["champion", "canary", "canary-2"]
    state = changes.retire(state, "", "canary").state
    state = changes.deploy(state, "", source("4"), 100).state
    assert [arm.name for arm in only(state).arms] == ["champion", "canary-2", "canary"]
    assert only(state).arms[-1].thresholds is None
    # An arm's name must not hide a version's.
    named = changes.deploy(plan("canary"), "", source("2"), 0).state
    assert [arm.name for arm in only(named).arms] == ["champion", "canary-2"]


def test_a_model_that_does_not_serve_starts_with_all_of_its_traffic() -> None:
    before = plan("1")
    state, notes = changes.deploy(before, "amounts", source("7"), 10_000)
    check_state(state)
    assert [model.name for model in state.models] == ["amounts", "fraud"]
    assert state.models[0].arms[0].name == "champion"
    assert notes == ("model amounts starts to serve",)
    assert changes.n_buckets_moved(before, state) == 0
    with pytest.raises(ChangeError, match=r"deploy it with 100 %, not 10 %"):
        changes.deploy(before, "amounts", source("7"), 1_000)


@pytest.mark.parametrize(
    ("version", "share", "arm", "message"),
    [
        ("2", 10, "", r"version 2 takes part already, as canary with 10 %.*traffic set"),
        ("3", 10_001, "", "0 to 10000 basis points"),
        ("3", -1, "", "not -1"),
        ("3", 10, "canary", r"an arm canary already; arms: champion \(1, 90 %\), canary"),
        ("3", 10, "2", "2 is the version that arm canary serves"),
        ("3", 10, "a b", "'a b' is not a name"),
        ("", 10, "", "'' is not a name"),
    ],
)
def test_deploy_refuses(version: str, share: int, arm: str, message: str) -> None:
    with pytest.raises(ChangeError, match=message):
        changes.deploy(plan("1", "2", weights=(9_000, 1_000)), "", source(version), share, arm)


def test_a_model_has_255_arms_at_most() -> None:
    state = plan(*(f"v{i}" for i in range(255)))
    assert only(state).arms[-1].name == "canary-254"
    with pytest.raises(ChangeError, match="no more can; retire one"):
        changes.deploy(state, "", source("one-more"), 0)
    spread = changes.set_traffic(
        state, "", {f"v{i}": 10_000 // 255 + (i < 10_000 % 255) for i in range(255)}
    ).state
    check_state(spread)
    check_state(changes.retire(spread, "", "v0").state)


# -------------------------------------------------------------------- traffic


def test_arms_that_are_not_named_keep_their_weight() -> None:
    before = plan("1", "2", "3", weights=(7_000, 2_000, 1_000))
    after = changes.set_traffic(before, "fraud", {"canary": 500, "1": 8_500}).state
    assert weights_of(after) == {"1": 8_500, "2": 500, "3": 1_000}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no weights given"),
        ({"1": 5_000, "2": 5_000}, r"not 11000 \(not named, so they keep theirs: canary-2 1000\)"),
        ({"1": 5_000, "champion": 5_000}, "given two weights"),
        ({"1": -1, "2": 9_001}, "0 to 10000 basis points"),
        ({"9": 10_000}, r"no arm or version '9'; arms: champion \(1, 70 %\), canary"),
    ],
)
def test_traffic_refuses(weights: Mapping[str, int], message: str) -> None:
    with pytest.raises(ChangeError, match=message):
        changes.set_traffic(plan("1", "2", "3", weights=(7_000, 2_000, 1_000)), "", weights)


def test_an_unknown_model_is_told_which_there_are() -> None:
    with pytest.raises(ChangeError, match="model 'nope' does not serve; models that do: fraud"):
        changes.set_traffic(plan("1"), "nope", {"1": 10_000})


def test_an_arms_name_comes_before_a_version_and_two_of_a_version_are_ambiguous() -> None:
    arms = tuple(
        ArmState(name=name, version=version, sha256="0" * 64, weight_basis_points=weight)
        for name, version, weight in [("a", "b", 10_000), ("b", "x", 0), ("c", "x", 0)]
    )
    model = ModelState(name="m", arms=arms, table=pack_table(bytes(10_000)), salt="m")
    assert changes.resolve_arm(model, "b") is arms[1]
    with pytest.raises(ChangeError, match="ambiguous: arms b, c serve it"):
        changes.resolve_arm(model, "x")


# --------------------------------------------------------- promote and retire


def test_promote_leaves_the_promoted_arm_alone_as_champion() -> None:
    before = plan("1", "2", "3", weights=(6_000, 3_000, 1_000))
    pins = {"k1": "canary", "k2": "champion", "k3": "canary-2"}
    before = changes.set_overrides(before, "", pins).state
    after, notes = changes.promote(before, "", "2")
    check_state(after)
    (arm,) = only(after).arms
    assert (arm.name, arm.version, arm.weight_basis_points) == ("champion", "2", 10_000)
    assert only(after).overrides == {"k1": "champion"}
    assert notes == (
        "model fraud: arm champion leaves, and so do the overrides that pinned 'k2' to it",
        "model fraud: arm canary-2 leaves, and so do the overrides that pinned 'k3' to it",
    )
    assert changes.n_buckets_moved(before, after) == 7_000


def test_promote_finds_the_only_one_beside_the_champion() -> None:
    assert only(changes.promote(plan("1", "2"), "").state).arms[0].version == "2"
    with pytest.raises(ChangeError, match="say which arm to promote; arms: champion"):
        changes.promote(plan("1", "2", "3"), "")
    with pytest.raises(ChangeError, match="nothing to promote"):
        changes.promote(plan("1"), "")
    # The champion retired: the only arm is promoted, which only renames it.
    left = changes.retire(plan("1", "2"), "", "champion").state
    assert only(changes.promote(left, "").state).arms[0].name == "champion"
    # Promoting the champion again changes nothing.
    assert changes.promote(plan("1"), "", "champion").state == plan("1")


def test_retire_gives_the_share_to_the_others_and_closes_the_indexes_up() -> None:
    before = plan("1", "2", "3", weights=(6_000, 3_000, 1_000))
    pins = {f"k{i}": "canary" for i in range(7)} | {"z": "canary-2"}
    before = changes.set_overrides(before, "", pins).state
    after, notes = changes.retire(before, "", "canary")
    check_state(after)
    check_moves(before, after)
    assert weights_of(after) == {"1": 8_571, "3": 1_429}
    assert only(after).overrides == {"z": "canary-2"}
    assert notes == (
        (
            "model fraud: arm canary leaves, and so do the overrides that pinned "
            "'k0', 'k1', 'k2', 'k3', 'k4' and 2 more to it"
        ),
    )


def test_retiring_the_champion_says_that_there_is_none() -> None:
    after, notes = changes.retire(plan("1", "2"), "", "champion")
    assert weights_of(after) == {"2": 10_000}
    assert "no arm is called champion any more" in notes[0]


@pytest.mark.parametrize(
    ("versions", "weights", "arm", "message"),
    [
        (("1",), (), "1", "its only arm; deploy another version"),
        (("1", "2", "3"), (), "1", "has all the traffic, and nothing says which"),
        (("1", "2"), (), "", "model fraud is the default one"),
        (("1", "2"), (), "x", "no arm or version 'x'"),
    ],
)
def test_retire_refuses(
    versions: tuple[str, ...], weights: tuple[int, ...], arm: str, message: str
) -> None:
    with pytest.raises(ChangeError, match=message):
        changes.retire(plan(*versions, weights=weights), "", arm)


def test_a_whole_model_leaves() -> None:
    state = changes.deploy(plan("1"), "other", source("1"), 10_000).state
    after, notes = changes.retire(state, "other")
    assert after == plan("1")
    assert notes == ("model other stops serving",)


# ----------------------------------------------------------------- attributes


def states(**scores: float) -> dict[str, ThresholdState]:
    return {name: ThresholdState(name, raw, 0.5) for name, raw in scores.items()}


def test_thresholds_are_one_arms_and_go_back_to_the_bundles() -> None:
    before = plan("1", "2")
    after = changes.set_thresholds(before, "", "canary", states(review=-1.0, block=2.0)).state
    check_state(after)
    champion, canary = only(after).arms
    assert champion.thresholds is None
    assert canary.thresholds == tuple(states(review=-1.0, block=2.0).values())
    assert changes.n_buckets_moved(before, after) == 0
    assert changes.set_thresholds(after, "", "canary", None).state == before
    assert changes.set_thresholds(after, "", "", None).state == before


@pytest.mark.parametrize(
    ("arm", "thresholds", "message"),
    [
        ("", states(review=0.0, block=1.0), "say which arm's thresholds"),
        ("1", states(review=1.0, block=1.0), r"have to ascend; block \(0.5\) is not above review"),
        ("1", states(review=0.0, block=0.1), "raw score 0.1 is not a finite float32"),
        ("1", states(review=0.0, block=1e300), "not a finite float32"),
        ("1", states(review=float("nan"), block=1.0), "not a finite float32"),
        ("1", {"review": ThresholdState("review", 0.0, float("inf"))}, "score inf is not finite"),
        ("1", {}, "no thresholds given"),
        ("2", states(review=0.0), "the thresholds are review, block, in this order; got review"),
        ("2", states(block=0.0, review=1.0), "in this order; got block, review"),
    ],
)
def test_thresholds_refuse(
    arm: str, thresholds: Mapping[str, ThresholdState], message: str
) -> None:
    state = changes.set_thresholds(plan("1", "2"), "", "2", states(review=0.0, block=1.0)).state
    with pytest.raises(ChangeError, match=message):
        changes.set_thresholds(state, "", arm, thresholds)


def test_overrides_are_set_removed_and_cleared() -> None:
    state = changes.set_overrides(plan("1", "2"), "", {"b": "2", "a": "champion", "ü": "1"}).state
    check_state(state)
    assert only(state).overrides == {"a": "champion", "b": "canary", "ü": "champion"}
    removed = changes.set_overrides(state, "", {"b": "champion"}, ["a"]).state
    assert only(removed).overrides == {"b": "champion", "ü": "champion"}
    cleared = changes.set_overrides(state, "", {"c": "canary"}, clear=True).state
    assert only(cleared).overrides == {"c": "canary"}
    assert only(changes.set_overrides(state, "", {}, clear=True).state).overrides == {}


@pytest.mark.parametrize(
    ("pins", "remove", "message"),
    [
        ({"": "1"}, [], "1 to 1024 bytes of UTF-8; '' has 0"),
        ({"ü" * 513: "1"}, [], "has 1026"),
        ({"a": "nope"}, [], "no arm or version 'nope'"),
        ({}, ["x"], "no override pins 'x'"),
        ({"k": "1"}, ["k"], "'k' is both set and removed"),
        ({f"k{i}": "1" for i in range(MAX_OVERRIDES)}, [], "10002 overrides are more than"),
    ],
)
def test_overrides_refuse(pins: Mapping[str, str], remove: list[str], message: str) -> None:
    state = changes.set_overrides(plan("1", "2"), "", {"k": "1", "other": "2"}).state
    with pytest.raises(ChangeError, match=message):
        changes.set_overrides(state, "", pins, remove)


def test_the_longest_key_of_a_request_can_be_pinned() -> None:
    state = changes.set_overrides(plan("1"), "", {"k" * MAX_KEY_BYTES: "1"}).state
    check_state(state)


def test_labels_name_versions_that_need_not_take_part() -> None:
    state = changes.set_labels(plan("1"), "", {"stable": "1", "next": "9"}).state
    check_state(state)
    assert only(state).labels == {"next": "9", "stable": "1"}
    assert only(changes.set_labels(state, "", {"stable": "9"}, ["next"]).state).labels == {
        "stable": "9"
    }


@pytest.mark.parametrize(
    ("labels", "remove", "message"),
    [
        ({"1": "2"}, [], "'1' is a version, and a label of that name would hide it"),
        ({"x": "y", "y": "z"}, [], "'y' is a version"),
        ({"a/b": "1"}, [], "'a/b' is not a name"),
        ({"a": ".."}, [], "'..' is not a name"),
        ({}, ["a"], "no label 'a' to remove; there are: stable"),
        ({"stable": "1"}, ["stable"], "both set and removed"),
        ({f"l{i}": "1" for i in range(100)}, [], "101 labels"),
    ],
)
def test_labels_refuse(labels: Mapping[str, str], remove: list[str], message: str) -> None:
    state = changes.set_labels(plan("1"), "", {"stable": "1"}).state
    with pytest.raises(ChangeError, match=message):
        changes.set_labels(state, "", labels, remove)


# ---------------------------------------------------------- freezing, going back


def test_another_model_becomes_the_default_one() -> None:
    state = changes.initial({"fraud": source("1"), "limits": source("5")}, "fraud").state
    after = changes.set_default_model(state, "limits").state
    check_state(after)
    assert after == replace(state, default_model="limits")
    # The former one may leave now; the new one may not.
    assert [one.name for one in changes.retire(after, "fraud").state.models] == ["limits"]
    with pytest.raises(ChangeError, match=r"limits is the default one.*`scoregate models default`"):
        changes.retire(after, "limits")
    assert changes.restore(after, state).notes == ("requests that name no model go to fraud again",)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("other", "model 'other' does not serve; models that do: fraud, limits"),
        ("", "default model: say which; models that serve: fraud, limits"),
    ],
)
def test_the_default_model_has_to_serve(model: str, message: str) -> None:
    state = changes.initial({"fraud": source("1"), "limits": source("5")}, "fraud").state
    with pytest.raises(ChangeError, match=message):
        changes.set_default_model(state, model)


def test_freezing_says_why_and_ends() -> None:
    frozen, notes = changes.freeze(plan("1"), "month end")
    assert frozen.frozen == "month end"
    assert not notes
    again, notes = changes.freeze(frozen, "audit")
    assert again.frozen == "audit"
    assert notes == ("changes were frozen before: month end",)
    assert changes.unfreeze(frozen) == (plan("1"), ())
    assert changes.unfreeze(plan("1")).notes == ("changes were not frozen",)
    with pytest.raises(ChangeError, match="say why"):
        changes.freeze(plan("1"), " ")


@given(st.data())
@settings(max_examples=25)
def test_going_back_brings_all_of_an_earlier_plan(data: st.DataObject) -> None:
    earlier = replace(plan("1", "2", weights=data.draw(splits(2))), generation=5)
    earlier = changes.set_overrides(earlier, "", {"k": "2"}).state
    earlier = changes.set_labels(earlier, "", {"stable": "1"}).state
    earlier = changes.set_thresholds(earlier, "", "2", states(review=0.0, block=1.0)).state
    after: list[Callable[[PlanState], changes.Changed]] = [
        lambda s: changes.promote(s, "", "2"),
        lambda s: changes.set_traffic(s, "", {"1": 1, "2": 9_999}),
        lambda s: changes.deploy(s, "other", source("1"), 10_000),
        lambda s: changes.deploy(s, "", source("3"), 500),
        lambda s: changes.set_thresholds(s, "", "", None),
        lambda s: changes.freeze(s, "enough"),
    ]
    current = data.draw(st.sampled_from(after))(earlier).state
    current = replace(current, generation=9)
    back, notes = changes.restore(current, earlier)
    check_state(back)
    assert back == replace(earlier, generation=9, frozen=current.frozen)
    assert changes.same_content(back, earlier)
    assert any("other stops serving" in note for note in notes) == (len(current.models) == 2)


def test_going_back_and_forth_tells_which_models_come_and_go() -> None:
    one = changes.initial({"a": source("1"), "b": source("1")}, "a").state
    other = changes.initial({"b": source("2"), "c": source("1")}, "c").state
    assert changes.restore(one, other).notes == (
        "model c serves again",
        "model a stops serving",
        "requests that name no model go to c again",
    )
    # Only `b` is in both; all of its buckets are another bundle's.
    assert changes.n_buckets_moved(one, other) == 10_000


def test_another_salt_moves_every_bucket_unless_one_bundle_has_them_all() -> None:
    split = plan("1", "2", weights=(5_000, 5_000))
    assert changes.n_buckets_moved(split, _salted(split)) == 10_000
    assert changes.n_buckets_moved(plan("1"), _salted(plan("1"))) == 0


def _salted(state: PlanState) -> PlanState:
    return replace(state, models=(replace(only(state), salt="other"),))
