"""Prometheus metrics of quality.

Rules are those of `collector`. A figure that is not known is NaN, never 0. Every figure with an
interval has two more families, `_low` and `_high`, its 95 % bounds: an alert on a falling figure
asks the high one ("even at best"), a promise of one the low one. Estimates have names of their own,
so that no query takes them for measurements by mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from server.feedback.quality.evaluator import Evaluator
from server.feedback.quality.reports import (
    ESTIMATED,
    LABELLED,
    MATURED,
    QualityMetric,
    QualityReport,
)

ARM = ("model", "model_version", "arm")
_READ = "Read it with its interval (_low, _high) and ml_model_labels; see docs/quality.md."

# Name of the report's figure -> family, its own label, what it is.
FIGURES: dict[str, tuple[str, str, str]] = {
    "accuracy": (
        "ml_model_accuracy",
        "",
        (
            "Share of decisions on their side of the strictest threshold. With rare fraud a model "
            "that always says no has 0.999 of it: look at precision and recall. "
        ),
    ),
    "precision": (
        "ml_model_precision",
        "threshold",
        (
            "Share of positives among the decisions that reach a threshold. Falling: more good "
            "customers are stopped; move the threshold or retrain. "
        ),
    ),
    "recall": (
        "ml_model_recall",
        "threshold",
        (
            "Share of the positives that reach a threshold. Falling: fraud is missed; see "
            "docs/runbooks/retrain.md. "
        ),
    ),
    "value_recall": (
        "ml_model_value_recall",
        "threshold",
        "Share of the reported amounts of positives that reach a threshold. ",
    ),
    "auc": (
        "ml_model_auc",
        "",
        "Area under the ROC curve: how often a positive's score is above a negative's. ",
    ),
    "average_precision": (
        "ml_model_average_precision",
        "",
        (
            "Area under the precision-recall curve; depends on how rare positives are: compare the "
            "same weeks. "
        ),
    ),
    "brier": (
        "ml_model_brier_score",
        "",
        "Mean squared difference of score and outcome; smaller is better. ",
    ),
    "calibration_error": (
        "ml_model_calibration_error",
        "",
        "Weighted mean difference between what scores promise and what came. It has no interval. ",
    ),
    "card_precision": (
        "ml_model_card_precision",
        "k",
        "Share of cards with fraud among the k most suspicious of a day. ",
    ),
}
BOUNDS = (("low", "Lower"), ("high", "Upper"))
NO_BOUNDS = frozenset({"calibration_error"})


def families(evaluator: Evaluator) -> Iterator[Metric]:
    """Yield every family of quality, from the latest reports."""
    reports = evaluator.reports
    measured = [one for one in reports if one.cohort in (MATURED, LABELLED)]
    estimates = [one for one in reports if one.cohort == ESTIMATED]
    for figure, (family, label, text) in FIGURES.items():
        labels = [*ARM, "cohort", *([label] if label else [])]
        value = GaugeMetricFamily(family, text + _READ, labels=labels)
        _fill(value, measured, figure, "value")
        yield value
        for end, word in () if figure in NO_BOUNDS else BOUNDS:
            bound = GaugeMetricFamily(
                f"{family}_{end}", f"{word} end of the 95 % interval of {family}.", labels=labels
            )
            _fill(bound, measured, figure, end)
            yield bound
    for figure in ("accuracy", "precision", "recall", "auc", "average_precision", "brier"):
        family, label, _ = FIGURES[figure]
        guess = GaugeMetricFamily(
            f"{family}_estimated",
            f"{family} to be expected of the decisions that have not matured, if calibrated scores "
            "told the truth; blind to new kinds of fraud. NaN: not calibrated.",
            labels=[*ARM, *([label] if label else [])],
        )
        _fill(guess, estimates, figure, "value", cohort=False)
        yield guess
    yield from _counts(measured)
    yield from _work(evaluator)


def _fill(
    family: GaugeMetricFamily,
    reports: Sequence[QualityReport],
    figure: str,
    end: str,
    *,
    cohort: bool = True,
) -> None:
    has_label = bool(FIGURES[figure][1])
    for report in reports:
        mine = [one for one in report.metrics if one.name == figure]
        # Accuracy is one series: at the strictest threshold, which is the last.
        for one in mine if has_label else mine[-1:]:
            family.add_metric(_labels(report, one, cohort, has_label), getattr(one, end))


def _labels(
    report: QualityReport, metric: QualityMetric, cohort: bool, threshold: bool
) -> list[str]:
    labels = [report.model, report.version, report.arm]
    if cohort:
        labels.append(report.cohort)
    return [*labels, metric.threshold] if threshold else labels


def _counts(reports: Sequence[QualityReport]) -> Iterator[Metric]:
    labels = GaugeMetricFamily(
        "ml_model_labels",
        "Decisions that figures of quality are made of, by what was reported: positive, negative, "
        "none. With few positives intervals are wide: wait, or explore more.",
        labels=[*ARM, "cohort", "outcome"],
    )
    effective = GaugeMetricFamily(
        "ml_model_effective_observations",
        "Decisions that count, as many as they are worth with unequal weights (Kish).",
        labels=[*ARM, "cohort"],
    )
    for one in reports:
        label = [one.model, one.version, one.arm, one.cohort]
        labels.add_metric([*label, "positive"], one.n_positive)
        labels.add_metric([*label, "negative"], one.n_labels - one.n_positive)
        labels.add_metric([*label, "none"], one.n_decisions - one.n_labels)
        effective.add_metric(label, one.n_effective)
    yield from (labels, effective)


def _work(evaluator: Evaluator) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "ml_quality_last_evaluation_timestamp_seconds",
        "When quality was last measured; 0: never. Standing still: see the log, and whether the "
        "disk of decisions can be read.",
        value=evaluator.evaluated_ms / 1000,
    )
    yield GaugeMetricFamily(
        "ml_quality_evaluation_duration_seconds",
        "How long that took.",
        value=evaluator.duration_s,
    )
    evaluations = CounterMetricFamily(
        "ml_quality_evaluations", "Measurements of quality.", labels=["result"]
    )
    evaluations.add_metric(["ok"], evaluator.n_ok)
    evaluations.add_metric(["failed"], evaluator.n_failed)
    yield evaluations
