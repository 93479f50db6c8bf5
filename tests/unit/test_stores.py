"""The server's own view of its stores: what is looked after, reported and tried again."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from fastpath.metrics import Metrics
from fastpath.store import OUTCOMES
from server.config import FeatureSettings, RedisSettings
from server.feature_metrics import feature_families, read_families, store_families
from server.features.batch import BatchTableWriter
from server.stores import FeatureStores
from tests.support.serving import ROOT
from tests.support.stores import CUSTOMER, now_ms

WAIT_S = 30.0


def write_batch(directory: Path) -> str:
    with BatchTableWriter(directory, CUSTOMER) as table:
        table.write(["c1"], now_ms(), [[1.0, 2.0]])
        table.commit()
        return table.generation


def test_a_plan_that_failed_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New tables wait for their plan, however often making it fails."""
    stores = FeatureStores(
        FeatureSettings(directory=str(tmp_path), poll_s=0.05), RedisSettings(), 1
    )
    seen: list[str] = []
    published = threading.Event()

    def publish() -> None:
        seen.append(stores.batch["customer"].generation)
        if len(seen) < 3:
            raise RuntimeError("no plan this time")
        published.set()

    stores.start(publish)
    try:
        generation = write_batch(tmp_path)
        assert published.wait(WAIT_S)
    finally:
        stores.stop()
    assert seen == [generation] * 3  # and not again after it succeeded
    assert caplog.text.count("could not be looked after") == 2


def test_without_stores_there_is_nothing_to_report() -> None:
    stores = FeatureStores(FeatureSettings(), RedisSettings(), 2)
    stores.start(lambda: None)
    assert stores.kind == "none"
    assert list(stores.online) == [None, None]
    assert stores.reports() == []
    assert stores.batch == {}
    stores.stop()


def test_the_runbook_names_metrics_that_exist(tmp_path: Path) -> None:
    """What an operator is told to look at is what a scrape of such a server has."""
    redis = FeatureStores(
        FeatureSettings(directory=str(tmp_path), online="redis"),
        RedisSettings(address="unix:/nowhere", replica="unix:/nowhere-else"),
        1,
    )
    lmdb = FeatureStores(
        FeatureSettings(directory=str(tmp_path), online="lmdb"), RedisSettings(), 1
    )
    metrics = Metrics(1)
    families = [
        *feature_families(()),
        *read_families(metrics.snapshot()),
        *store_families(redis),
        *store_families(lmdb),
    ]
    known = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    # The collector's own, for all models.
    known |= {"ml_predictions_total", "ml_predictions_degraded_total"}
    causes = {
        sample.labels["cause"]
        for family in families
        if family.name.startswith("scoregate_store_")
        for sample in family.samples
        if "cause" in sample.labels
    }
    text = (ROOT / "docs" / "runbooks" / "feature-stores.md").read_text("utf-8")
    assert set(re.findall(r"\b(?:ml|scoregate)_[a-z_]+", text)) <= known
    rows = [
        line.split("|")[1:-1]
        for line in text.splitlines()
        if line.startswith("|") and line.count("|") == 5
    ][2:]
    assert len(rows) > 20
    for _, outcomes, states, _ in rows:
        named = set(re.findall(r"`([a-z_]+)`", outcomes))
        assert named, outcomes
        assert named <= set(OUTCOMES)
        told = [part for part in states.split(";") if re.search(r"errors|failures", part)]
        for part in told:
            assert set(re.findall(r"`([a-z_]+)`", part)) <= causes, part
