"""`scoregate quality`: how well the versions that decided did, as far as outcomes tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from server.cli.lines import NONE, plain, table, utc
from server.cli.remote import EXIT_CODES, Remote, json_option, remote_options, to_json

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import feedback_pb2 as pb

METHOD = "/scoregate.v1.Feedback/GetQuality"
N_GROUPS = 20  # of a printed curve
NAMES = {
    "recall": "recall",
    "precision": "precision",
    "value_recall": "value recall",
    "accuracy": "accuracy",
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "card_precision": "card precision",
}


@click.command(epilog=EXIT_CODES)
@click.argument("model", default="")
@click.argument("version", default="")
@click.option("--curves", is_flag=True, help="Also print scores against outcomes.")
@json_option
@remote_options
def quality(remote: Remote, model: str, version: str, curves: bool, as_json: bool) -> None:
    """Show how well models did, by version and arm, with 95 % intervals.

    \b
    scoregate quality
    scoregate quality fraud 2 --curves
    scoregate quality fraud --json | jq '.reports[] | select(.cohort == "matured")'

    "matured": decisions that are old enough for silence to mean "no fraud": the figures to decide
    by. "labelled": those with a report, however young; fraud is reported more often than its
    absence. "estimated": what calibrated scores promise of young decisions; blind to new kinds of
    fraud. docs/quality.md has the definitions.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import feedback_pb2 as pb

    request = pb.GetQualityRequest(model=model, version=version, curves=curves)
    answer = remote.call(METHOD, request, pb.GetQualityResponse)
    if as_json:
        click.echo(to_json(answer))
    elif answer.reports:
        click.echo(render(answer.reports))
    else:
        click.echo("nothing is measured yet: no decision was recorded")


def render(reports: Sequence[pb.QualityReport]) -> str:
    """Return a page: a table for each version in an arm, its cohorts side by side."""
    groups: dict[tuple[str, str, str], list[pb.QualityReport]] = {}
    for one in reports:
        groups.setdefault((one.model, one.version, one.arm), []).append(one)
    blocks = []
    for (model, version, arm), mine in groups.items():
        blocks.append(plain(f"{model} {version}, arm {arm}"))
        blocks.append(table(_rows(mine), right=range(1, len(mine) + 1), indent="  "))
        notes = "\n".join(plain(f"  {one.cohort}: {one.note}") for one in mine if one.note)
        if notes:
            blocks.append(notes)
        blocks += [curve for one in mine if (curve := _curve(one))]
    return "\n\n".join(blocks)


def figure(metric: pb.QualityMetric | None) -> str:
    """Return a figure with its interval: "0.83 [0.79, 0.87]"."""
    if metric is None or math.isnan(metric.value):
        return NONE
    if math.isnan(metric.low) or math.isnan(metric.high):
        return _number(metric.value)
    digits = _digits(metric.high - metric.low)
    value, low, high = (f"{x:.{digits}f}" for x in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def _rows(reports: Sequence[pb.QualityReport]) -> Iterator[list[str]]:
    yield ["", *(one.cohort for one in reports)]
    yield ["from", *(_time(one.from_time_ms) for one in reports)]
    yield ["to", *(_time(one.to_time_ms) for one in reports)]
    yield ["decisions", *(f"{one.n_decisions:,}" for one in reports)]
    yield ["labels, positive", *(f"{one.n_labels:,}, {one.n_positive:,}" for one in reports)]
    if any(abs(one.n_effective - one.n_decisions) >= 1 for one in reports if one.n_effective):
        yield ["worth", *(f"{one.n_effective:,.0f}" for one in reports)]
    found = [{(m.name, m.threshold): m for m in one.metrics} for one in reports]
    keys = list(dict.fromkeys(key for one in found for key in one))
    order = list(NAMES)
    keys.sort(key=lambda key: order.index(key[0]) if key[0] in NAMES else len(order))
    for name, threshold in keys:
        joint = "@" if name == "card_precision" else " at "
        words = NAMES.get(name, name) + (joint + threshold if threshold else "")
        yield [plain(words), *(figure(one.get((name, threshold))) for one in found)]


def _time(time_ms: int) -> str:
    return utc(time_ms) if time_ms else NONE


def _digits(width: float) -> int:
    """Return the digits after the point that tell the ends of an interval apart."""
    return 2 if width >= 0.02 else 3 if width >= 0.002 else 4


def _number(value: float) -> str:
    return f"{value:.2e}" if 0 < value < 1e-4 else f"{value:.4f}"


def _curve(report: pb.QualityReport) -> str:
    """Return scores against outcomes, in groups of neighbouring bins."""
    total = sum(_weight(one) for one in report.bins)
    positive = sum(one.n_positive for one in report.bins)
    if not total:
        return ""
    groups: dict[int, list[pb.ScoreBin]] = {}
    seen = 0.0
    for one in report.bins:
        # Half by traffic, half by positives: either alone would hide the other.
        part = _weight(one) / total
        part = (part + (one.n_positive / positive if positive else part)) / 2
        group = min(int((seen + part / 2) * N_GROUPS), N_GROUPS - 1)
        groups.setdefault(group, []).append(one)
        seen += part
    rows = [["raw score from", "negative", "positive", "unknown", "mean score", "positive share"]]
    for bins in groups.values():
        weight = sum(map(_weight, bins))
        good, bad = (sum(getattr(b, name) for b in bins) for name in ("n_negative", "n_positive"))
        score = sum(b.mean_score * _weight(b) for b in bins if _weight(b))
        rows.append(
            [
                f"{bins[0].raw_low:.4g}",
                f"{good:,.0f}",
                f"{bad:,.0f}",
                f"{sum(b.n_unknown for b in bins):,.0f}",
                f"{score / weight:.4f}" if weight else NONE,
                f"{bad / (good + bad):.4f}" if good + bad else NONE,
            ]
        )
    return f"  {report.cohort}, weighted:\n" + table(rows, right=range(6), indent="  ")


def _weight(one: pb.ScoreBin) -> float:
    return one.n_negative + one.n_positive + one.n_unknown
