"""Quality as Prometheus and people see it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.cli.quality import figure, render
from server.config.feedback import FeedbackSettings
from server.feedback.quality import Evaluator, VersionFacts, score_edges
from server.feedback.quality.facts import TOP_K
from server.feedback.quality.metrics import FIGURES, families
from server.feedback.quality.reports import COHORTS, QualityMetric, QualityReport
from server.pb.scoregate.v1 import feedback_pb2 as pb
from tests.support.decided import DAY_MS, NOW_MS, decide, keep, open_records, report
from tests.support.quality import scored

CUTS = (-2.0, 0.0)
FACTS = VersionFacts(
    (("review", CUTS[0]), ("block", CUTS[1])), (np.array([-6.0, 2.0]), np.array([0.0, 0.9]))
)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    folder: Path = tmp_path_factory.mktemp("quality")
    rows = scored(1, 4000, n_cards=800)
    records = open_records(folder)
    for slot, age in enumerate((40, 3)):
        decided = decide(rows, NOW_MS - age * DAY_MS, cuts=CUTS, slot=slot)
        keep(records, decided, score_edges(np.sort(rows.raw), CUTS))
        report(records, decided, rows.label == 1)
    found = Evaluator(records.path, FeedbackSettings(), lambda *_: FACTS)
    found.evaluate(NOW_MS)
    records.close()
    assert len(found.reports) == len(COHORTS)
    return found


class _Of(Collector):
    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def collect(self) -> list[Metric]:
        return list(families(self._evaluator))


def scrape(evaluator: Evaluator) -> dict[str, Metric]:
    registry = CollectorRegistry()
    registry.register(_Of(evaluator))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_figure_is_there_with_its_bounds(evaluated: Evaluator) -> None:
    found = scrape(evaluated)
    for family, label, _ in FIGURES.values():
        names = {"model", "model_version", "arm", "cohort", *([label] if label else [])}
        shown = found[family]
        assert shown.samples, family
        for sample in shown.samples:
            assert set(sample.labels) == names
        series = [tuple(sorted(sample.labels.items())) for sample in shown.samples]
        assert len(set(series)) == len(series), f"{family} has a series twice"
        if family == "ml_model_calibration_error":
            assert f"{family}_low" not in found
            continue
        for low, value, high in zip(
            found[f"{family}_low"].samples, shown.samples, found[f"{family}_high"].samples,
            strict=True,
        ):  # fmt: skip
            assert low.labels == value.labels == high.labels
            if value.labels["cohort"] == "labelled" and "recall" not in family:
                assert math.isnan(value.value), "only positives were reported"
                continue
            assert low.value <= value.value <= high.value


def test_values_are_the_reports(evaluated: Evaluator) -> None:
    found = scrape(evaluated)
    matured = evaluated.reports[0]
    labels = {"model": "fraud", "model_version": "1", "arm": "champion", "cohort": "matured"}

    def value(name: str, **more: str) -> float:
        [one] = [s for s in found[name].samples if s.labels == labels | more]
        return one.value

    assert value("ml_model_recall", threshold="review") == matured.metric("recall", "review").value
    assert value("ml_model_recall_low", threshold="block") == matured.metric("recall", "block").low
    assert value("ml_model_auc") == matured.metric("auc").value
    # One series: what the strictest decision says.
    assert value("ml_model_accuracy") == matured.metric("accuracy", "block").value
    k = str(TOP_K[0])
    assert value("ml_model_card_precision", k=k) == matured.metric("card_precision", k).value
    assert value("ml_model_labels", outcome="positive") == matured.n_positive
    assert value("ml_model_labels", outcome="none") == 4000 - matured.n_labels
    assert value("ml_model_effective_observations") == pytest.approx(4000)
    del labels["cohort"]
    estimated = evaluated.reports[2]
    assert (
        value("ml_model_recall_estimated", threshold="block")
        == estimated.metric("recall", "block").value
    )
    labels.clear()
    assert value("ml_quality_last_evaluation_timestamp_seconds") == NOW_MS / 1000


def test_what_is_not_known_is_nan_and_never_zero() -> None:
    nothing = Evaluator(Path("nowhere"), FeedbackSettings(), lambda *_: None)
    assert not scrape(nothing)["ml_model_recall"].samples
    report = QualityReport(
        model="fraud", version="1", arm="champion", cohort="matured", from_time_ms=0,
        to_time_ms=0, n_decisions=0, n_labels=0, n_positive=0, n_effective=0.0,
        metrics=(QualityMetric("recall", "block"),),
    )  # fmt: skip
    nothing.reports = (report,)
    for name in ("ml_model_recall", "ml_model_recall_low", "ml_model_recall_high"):
        [unknown] = scrape(nothing)[name].samples
        assert math.isnan(unknown.value)
    assert len(scrape(nothing)["ml_model_labels"].samples) == 3


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.8312, 0.79, 0.87, "0.83 [0.79, 0.87]"),
        (0.99912, 0.9987, 0.9995, "0.9991 [0.9987, 0.9995]"),
        (0.8761, 0.8711, 0.8802, "0.876 [0.871, 0.880]"),
        (0.5, math.nan, math.nan, "0.5000"),
        (0.000012, math.nan, math.nan, "1.20e-05"),
        (math.nan, math.nan, math.nan, "–"),
    ],
)
def test_a_figure_shows_the_digits_that_it_has(
    value: float, low: float, high: float, said: str
) -> None:
    assert figure(pb.QualityMetric(value=value, low=low, high=high)) == said


def _messages(evaluated: Evaluator) -> list[pb.QualityReport]:
    made = []
    for one in evaluated.reports:
        message = pb.QualityReport(
            model=one.model, version=one.version, arm=one.arm, cohort=one.cohort,
            from_time_ms=one.from_time_ms, to_time_ms=one.to_time_ms, note=one.note,
            n_decisions=one.n_decisions, n_labels=one.n_labels, n_positive=one.n_positive,
            n_effective=one.n_effective,
        )  # fmt: skip
        for metric in one.metrics:
            message.metrics.add(
                name=metric.name, threshold=metric.threshold, value=metric.value, low=metric.low,
                high=metric.high, interval=metric.interval,
            )  # fmt: skip
        for b in one.bins:
            message.bins.add(
                raw_low=b.raw_low, n_negative=b.n_negative, n_positive=b.n_positive,
                n_unknown=b.n_unknown, mean_score=b.mean_score, positive_amount=b.positive_amount,
            )  # fmt: skip
        made.append(message)
    return made


def test_people_see_cohorts_side_by_side(evaluated: Evaluator) -> None:
    messages = _messages(evaluated)
    messages[0].note += "\x1b[31m"
    for one in messages:
        del one.bins[:]
    text = render(messages)
    lines = text.splitlines()
    assert lines[0] == "fraud 1, arm champion"
    assert lines[2].split() == ["matured", "labelled", "estimated"]
    [recall] = [line for line in lines if line.startswith("  recall at block")]
    shown = evaluated.reports[0].metric("recall", "block")
    assert f"{shown.value:.2f} [{shown.low:.2f}, {shown.high:.2f}]" in recall
    assert any(line.startswith("  card precision@100") for line in lines)
    assert "\x1b" not in text
    assert "  matured: " in text


def test_curves_hold_every_decision(evaluated: Evaluator) -> None:
    text = render(_messages(evaluated)[:1])
    table = text.split("matured, weighted:\n")[1].splitlines()
    assert 10 <= len(table) - 1 <= 20
    columns = [line.replace(",", "").split() for line in table[1:]]
    assert columns[0][0] == "-inf"
    assert sum(float(row[1]) + float(row[2]) for row in columns) == pytest.approx(4000, abs=20)
