"""What a bundle tells of how its version is to be judged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from server.bundle.manifest import CALIBRATION
from server.bundle.reader import Bundle, read_bundle
from server.errors import BundleError
from server.feedback.quality import bundle_facts
from tests.support.serving import copy_repository, example_repository


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(example_repository().path / "fraud" / "2")


def test_the_bundle_says_thresholds_decisions_and_probabilities(bundle: Bundle) -> None:
    facts = bundle_facts(bundle)
    assert [name for name, _ in facts.thresholds] == ["review", "decline"]
    assert facts.decisions == ("approve", "review", "decline")
    assert facts.unseen == {2}
    assert facts.calibration is not None
    raw, probability = facts.calibration
    stored = bundle.arrays(CALIBRATION)
    assert np.array_equal(raw, stored["raw"])
    assert np.array_equal(probability, stored["probability"])


@pytest.mark.parametrize(
    ("names", "unseen"), [(("review", "decline"), {1, 2}), (("approve",), {0}), (("none",), set())]
)
def test_decisions_that_hide_their_outcome_can_be_named(
    bundle: Bundle, names: tuple[str, ...], unseen: set[int]
) -> None:
    assert bundle_facts(bundle, names).unseen == unseen


def test_thresholds_in_force_win_over_the_bundles(bundle: Bundle) -> None:
    facts = bundle_facts(bundle, thresholds=[("block", 1.5)])
    assert facts.thresholds == (("block", 1.5),)
    assert facts.decisions == ("approve", "block")
    assert facts.unseen == {1}
    assert bundle_facts(bundle, thresholds=[]).unseen == set()


def test_a_score_that_is_no_probability_has_no_estimate(bundle: Bundle) -> None:
    outputs = msgspec.structs.replace(bundle.manifest.outputs, score_kind="value")
    manifest = msgspec.structs.replace(bundle.manifest, outputs=outputs)
    assert bundle_facts(dataclasses.replace(bundle, manifest=manifest)).calibration is None


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"raw": [0.0, 1.0], "probability": [0.1]},
        {"raw": [], "probability": []},
        {"raw": [1.0, 1.0], "probability": [0.1, 0.2]},
        {"raw": [0.0, np.nan], "probability": [0.1, 0.2]},
        {"raw": [0.0, 1.0], "probability": [0.1, 1.2]},
        {"raw": ["a", "b"], "probability": [0.1, 0.2]},
    ],
)
def test_points_that_are_no_calibration_are_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, list[object]]
) -> None:
    made = {name: np.array(values) for name, values in arrays.items()}
    monkeypatch.setattr(Bundle, "arrays", lambda *_: made)
    assert bundle_facts(bundle).calibration is None


def test_a_calibration_that_was_damaged_since_is_none(tmp_path: Path) -> None:
    path = copy_repository(tmp_path / "repository") / "fraud" / "2"
    bundle = read_bundle(path)
    file = path / CALIBRATION
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError):
        bundle.arrays(CALIBRATION)
    assert bundle_facts(bundle).calibration is None
