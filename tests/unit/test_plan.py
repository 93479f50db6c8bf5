"""Plans: what cannot be compiled says why, and replaced plans go when nobody reads them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from fastpath.engine import Engine
from fastpath.errors import PlanError
from fastpath.linear import Linear
from fastpath.metrics import Metrics
from fastpath.plan import Plan, PlanArm, PlanBoard, PlanModel
from fastpath.routing import BucketTable
from fastpath.schema import Schema
from fastpath.spec import FeatureSpec
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import SPECS, linear_arm, make_plan


def refuse(says: str, **changes: Any) -> None:
    """Expect that an arm with these changes cannot be compiled."""
    metrics = Metrics(1)
    arm = linear_arm(metrics)._replace(**changes)
    with pytest.raises(PlanError, match=says) as caught:
        make_plan(metrics, arms=[arm])
    assert "model fraud, version 1, arm champion" in str(caught.value)


def test_an_arm_that_does_not_fit_is_refused_by_name() -> None:
    refuse("thresholds must ascend", thresholds=(("block", 2.0), ("review", 1.0)))
    refuse("thresholds must ascend", thresholds=(("block", 2.0), ("again", 2.0)))
    refuse("link 'probit'", link="probit")
    refuse("score kind 'odds'", score_kind="odds")
    refuse("takes 4 features, the schema has 1", schema=Schema(SPECS[:1]))


def test_a_plan_that_does_not_fit_is_refused() -> None:
    metrics = Metrics(1)
    arm = linear_arm(metrics)
    table = BucketTable.from_weights(b"s", [5_000, 5_000])
    with pytest.raises(PlanError, match="sends traffic to arm 1, but there are 1 arms"):
        Plan(1, [PlanModel("fraud", (arm,), table)])
    with pytest.raises(PlanError, match="at least one model"):
        Plan(1, [])
    one = PlanModel("fraud", (arm,), BucketTable.from_weights(b"s", [10_000]))
    with pytest.raises(PlanError, match="names must differ; got fraud, fraud"):
        Plan(1, [one, one])
    with pytest.raises(PlanError, match="default model 'x' is not in the plan: fraud"):
        Plan(1, [one], "x")


def test_a_layout_that_lacks_a_required_feature_cannot_be_published() -> None:
    metrics = Metrics(1)
    arm = linear_arm(metrics)
    model = PlanModel(
        "fraud",
        (arm,),
        BucketTable.from_weights(b"s", [10_000]),
        layouts=((("amount", "numeric"),),),
    )
    with pytest.raises(PlanError, match="age_days"):
        Plan(1, [model])


def test_clients_of_one_arms_layout_are_served_by_an_arm_with_one_more_feature() -> None:
    metrics = Metrics(1)
    wider = (*SPECS, FeatureSpec("new", "numeric", default=4.0))
    champion = linear_arm(metrics)
    canary = linear_arm(metrics, name="canary", version="2", specs=wider)
    board = PlanBoard()
    board.publish(make_plan(metrics, arms=[champion, canary], weights=[0, 10_000]))
    request = pb.ScoreRequest()
    request.dense.layout = champion.schema.fingerprint
    request.dense.values.extend([4.0, 1.0, 2.0, 8.0])
    [(status, body, _)] = Engine(board, metrics).answer([request.SerializeToString()], now_ns=1)
    answer = pb.ScoreResponse.FromString(body)
    assert (status, answer.arm) == (0, "canary")
    # 4 x .25 + 1 x 1 - 2 x .5 + 8 x .125, and the new feature's default: 4 x .25.
    assert answer.raw_score == 3.0
    assert answer.source_counts == pb.SourceCounts(request=4, default_value=1)


def test_arms_that_code_a_category_differently_cannot_share_a_model() -> None:
    metrics = Metrics(1)
    reordered = SPECS[2]._replace(vocabulary=("FR", "BE", "DE"))
    arms = [
        linear_arm(metrics),
        linear_arm(metrics, name="canary", version="2", specs=[*SPECS[:2], reordered, SPECS[3]]),
    ]
    with pytest.raises(PlanError, match=r"versions 1 and 2 have different .* 'country'"):
        make_plan(metrics, arms=arms, weights=[5_000, 5_000])


def test_generations_only_grow() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    board.publish(make_plan(metrics, generation=7))
    for generation in (7, 6):
        with pytest.raises(PlanError, match=f"generation {generation} is not above .* 7"):
            board.publish(make_plan(metrics, generation=generation))
    assert board.published is not None
    assert board.published.generation == 7


class CountedLinear(Linear):
    """A model that can be watched with a weak reference."""


def counted_plan(metrics: Metrics, generation: int) -> tuple[Plan, weakref.ref[Linear]]:
    model = CountedLinear(
        coefficients=np.ones(4), intercept=0.0, fill=np.full(4, np.nan, dtype=np.float32)
    )
    arm: PlanArm = linear_arm(metrics)._replace(model=model)
    return make_plan(metrics, generation=generation, arms=[arm]), weakref.ref(model)


def test_a_replaced_plan_is_freed_with_its_models() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    plan, model = counted_plan(metrics, 1)
    board.publish(plan)
    del plan
    old = board.publish(make_plan(metrics, generation=2))
    assert old is not None
    assert old.generation == 1
    del old
    gc.collect()
    assert model() is not None, "retired, not yet reclaimed"
    assert board.wait_retired(1.0)
    gc.collect()
    assert model() is None


def test_generation_in_answers_is_the_published_one() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    engine = Engine(board, metrics)
    request = pb.ScoreRequest()
    request.named.values["age_days"].number = 1.0
    for generation in (1, 2, 2**63, 2**64 - 1):
        board.publish(make_plan(metrics, generation=generation))
        [(_, body, _)] = engine.answer([request.SerializeToString()], now_ns=1)
        assert pb.ScoreResponse.FromString(body).plan_generation == generation
    assert board.reclaim() == 0
