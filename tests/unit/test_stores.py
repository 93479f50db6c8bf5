"""The server's own view of its stores: what is looked after, reported and tried again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from server.config import FeatureSettings, RedisSettings
from server.features.batch import BatchTableWriter
from server.stores import FeatureStores
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
