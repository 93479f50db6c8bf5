"""What GetModel says of a model with stored features."""

from __future__ import annotations

from pathlib import Path

from fastpath.routing import BucketTable
from fastpath.spec import FallbackLimits, GroupSpec, layout_fingerprint
from server.bundle import load_model, read_bundle
from server.control.describe import describe_model
from server.export import ExportOptions, FeatureOptions, export_model
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.rollout.changes import initial
from server.rollout.loaded import Key, Loaded
from server.rollout.plans import ServedArm, ServedModel
from tests.support.models import fitted, make_data


def described(out: Path, options: ExportOptions) -> tuple[pb.GetModelResponse, ServedModel]:
    """Export a small model and decode its description."""
    data = make_data()
    export_model(fitted(), data.frame, data.y, data.frame, data.y, out=out, options=options)
    bundle = read_bundle(out)
    key = Key("fraud", "1", bundle.sha256.hex())
    loaded = Loaded(key, load_model(bundle), slot=0, load_ms=1.0)
    [state] = initial({"fraud": loaded.source}, "fraud").state.models
    served = ServedModel(
        state=state,
        arms=(ServedArm("fraud", state.arms[0], loaded),),
        table=BucketTable.from_weights(b"s", [10_000]),
        former_layouts=(),
    )
    answer = pb.GetModelResponse.FromString(describe_model(served, True, 7))
    return answer, served


def test_groups_and_both_layouts(tmp_path: Path) -> None:
    answer, served = described(
        tmp_path / "m" / "1",
        ExportOptions(
            features={
                "f0": FeatureOptions(source="customer", column="n_day"),
                "f2": FeatureOptions(source="terminal"),
            },
            groups=[
                GroupSpec(
                    "customer", "customer", (("x", "boolean"), ("n_day", "numeric")),
                    role="payer", ttl_s=60.5, batch=False, read_budget_us=250,
                ),
                GroupSpec("terminal", "shop", (), online=False, batch_max_age_s=90_000.0),
            ],
            fallback=FallbackLimits(degrade_over=1),
        ),
    )  # fmt: skip
    schema = served.arms[0].loaded.content.schema
    [arm] = answer.arms
    customer, terminal = arm.groups
    assert (customer.name, customer.entity, customer.role) == ("customer", "customer", "payer")
    assert [(c.name, c.type) for c in customer.columns] == [
        ("x", pb.FEATURE_TYPE_BOOLEAN),
        ("n_day", pb.FEATURE_TYPE_NUMERIC),
    ]
    assert customer.fingerprint == schema.groups[0].fingerprint
    assert (customer.ttl_s, customer.read_budget_us) == (60.5, 250)
    assert not customer.HasField("batch_max_age_s")
    assert (customer.online, customer.batch) == (True, False)
    assert (terminal.online, terminal.batch) == (False, True)
    assert [column.name for column in terminal.columns] == ["f2"]
    assert terminal.batch_max_age_s == 90_000
    assert not terminal.HasField("ttl_s")
    assert terminal.read_budget_us == 5000
    sources = {feature.name: feature.source for feature in arm.features}
    assert [sources[f"f{j}"] for j in range(3)] == ["customer", "request", "terminal"]
    whole, request = answer.layouts
    assert whole.fingerprint == arm.layout == schema.fingerprint
    assert [c.name for c in request.columns] == [n for n, s in sources.items() if s == "request"]
    assert request.fingerprint == layout_fingerprint(schema.request_columns)


def test_without_stored_features_there_is_one_layout(tmp_path: Path) -> None:
    answer, _ = described(tmp_path / "m" / "1", ExportOptions())
    assert len(answer.layouts) == 1
    assert not answer.arms[0].groups
