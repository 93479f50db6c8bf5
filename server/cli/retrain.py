"""`scoregate retrain`: whether to train a model again."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.lines import plain
from server.cli.remote import EXIT_CODES, Remote, json_option, remote_options
from server.errors import InputError, RefusedError

if TYPE_CHECKING:
    from server.feedback.advice import Advice
    from server.feedback.validation import Validation
    from server.pb.scoregate.v1 import control_pb2, feedback_pb2, scoring_pb2

MAX_EVENTS = 1000  # that a server keeps
WIDTH = 100
LABEL = 12
NEXT = {
    "retrain": "docs/runbooks/retrain.md: train on these rows, `scoregate export`, "
    "`scoregate deploy VERSION --traffic 10`",
    "repair the pipeline first": "docs/runbooks/drift.md: `scoregate drift report`, then the "
    "caller or the store that should have the values",
}


@click.group()
def retrain() -> None:
    """Decide whether to train a model again."""


@retrain.command(epilog=f"{EXIT_CODES} With --fail-on: 1 also where that is the advice.")
@click.argument("model", default="")
@click.argument("version", default="")
@click.option(
    "--bundle",
    "bundles",
    metavar="DIR",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where a version's bundle is, or the repository: what quality was on validation rows "
    "stands there. Repeatable.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["retrain"]),
    help="End with exit code 1 where the advice on a version is to retrain: for scripts, which "
    "should look at --json too, because no answer is 1 as well.",
)
@json_option
@remote_options
def advise(
    remote: Remote,
    model: str,
    version: str,
    bundles: tuple[Path, ...],
    fail_on: str | None,
    as_json: bool,
) -> None:
    """Say whether to train again, why, on which rows, and what is not known.

    \b
    scoregate retrain advise --bundle repository
    scoregate retrain advise fraud 2 --bundle repository/fraud/2 --json

    One section per version that takes part. Drift, matured quality and counts of outcomes are
    weighed; docs/runbooks/retrain.md has the table, and what to do. Without --bundle, nothing says
    whether quality fell.
    """  # noqa: D301 - click looks for the backspace character itself
    import msgspec

    from server.feedback.advice import RETRAIN

    found = _Found(remote, model, version)
    validations = {one: found.validation(*one, bundles) for one in found.versions()}
    if bundles and validations and not any(validations.values()):
        where = ", ".join(map(str, bundles))
        wanted = ", ".join(" ".join(one) for one in validations)
        raise InputError(
            f"{where}: no bundle of {wanted}: give REPOSITORY/MODEL/VERSION, or REPOSITORY"
        )
    advice = [found.advice(*one, validation) for one, validation in validations.items()]
    if as_json:
        answer = {"now_ms": found.now_ms, "advice": advice}
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    elif advice:
        click.echo("\n\n".join(map(render, advice)))
    else:
        click.echo("no version takes part")
    if fail_on and any(one.verdict == RETRAIN for one in advice):
        sys.exit(1)


class _Found:
    """What a server knows of a model, or of all.

    Raises
    ------
    InputError
        It knows no such model or version, or neither drift nor quality.
    """

    def __init__(self, remote: Remote, model: str, version: str) -> None:
        from server.pb.scoregate.v1 import control_pb2 as control
        from server.pb.scoregate.v1 import feedback_pb2 as feedback

        self._remote = remote
        self._plans: dict[str, scoring_pb2.GetModelResponse] = {}
        self._off: list[str] = []
        self.drift: Sequence[control_pb2.DriftReport] = ()
        self.quality: Sequence[feedback_pb2.QualityReport] = ()
        status = remote.call("GetStatus", control.GetStatusRequest(), control.GetStatusResponse)
        self.started_ms = status.started_time_ms
        try:
            asked = control.GetDriftRequest(model=model, version=version)
            self.drift = remote.call("GetDrift", asked, control.GetDriftResponse).reports
        except RefusedError as error:
            if error.code != "FAILED_PRECONDITION":
                raise
            self._off.append(str(error))
        quality = feedback.GetQualityResponse()
        try:
            # Of every version: all saw the model's traffic.
            one = feedback.GetQualityRequest(model=model)
            quality = remote.call(
                "/scoregate.v1.Feedback/GetQuality", one, feedback.GetQualityResponse
            )
            self.quality = quality.reports
        except RefusedError as error:
            if error.code not in ("FAILED_PRECONDITION", "NOT_FOUND"):
                raise
            self._off.append(str(error))
        if len(self._off) == 2:
            raise InputError("; ".join(self._off))
        self._only = version
        self.now_ms = quality.now_ms or max((one.now_ms for one in self.drift), default=0)
        events = control.GetEventsRequest(
            limit=MAX_EVENTS,
            kinds=[f"drift.{state}" for state in ("warning", "retrain", "broken", "recovered")],
        )
        self.events = remote.call("GetEvents", events, control.GetEventsResponse).events

    def versions(self) -> list[tuple[str, str]]:
        """Return those that take part; where drift is off, those that quality is known of."""
        if self.drift:
            return sorted({(one.model, one.version) for one in self.drift})
        of = (one for one in self.quality if self._only in ("", one.version))
        return sorted({(one.model, one.version) for one in of})

    def advice(self, model: str, version: str, validation: Validation | None) -> Advice:
        """Return the advice on one version."""
        from server.feedback.advice import advise as weigh
        from server.feedback.training_rows import drift_history

        spans = [one.fast.span_s for one in self.drift if one.model == model]
        return weigh(
            model,
            version,
            drift=self.drift,
            quality=self.quality,
            validation=validation,
            history=drift_history(
                self.events,
                model,
                lead_ms=round(1000 * max(spans, default=0.0)),
                known_from_ms=self.started_ms,
                now_ms=self.now_ms,
            ),
            now_ms=self.now_ms,
        )

    def validation(self, model: str, version: str, bundles: Sequence[Path]) -> Validation | None:
        """Return what the version's bundle says, if one of the directories has it."""
        from server.bundle import read_bundle
        from server.bundle.manifest import MANIFEST
        from server.feedback.validation import validation_of

        for path in bundles:
            at = path if (path / MANIFEST).exists() else path / model / version
            if not (at / MANIFEST).exists():
                continue
            bundle = read_bundle(at)
            if (bundle.manifest.name, bundle.manifest.version) != (model, version):
                continue
            arm = next((one for one in self._plan(model).arms if one.version == version), None)
            if arm is None:
                return validation_of(
                    bundle, {one.name: one.raw_score for one in bundle.manifest.thresholds}
                )
            if arm.sha256 != bundle.sha256:
                raise InputError(
                    f"{at}: another bundle than the one that serves as {model} {version}: SHA-256 "
                    f"of its manifest {bundle.sha256.hex()}, and {arm.sha256.hex()} serves"
                )
            return validation_of(bundle, {one.name: one.raw_score for one in arm.thresholds})
        return None

    def _plan(self, model: str) -> scoring_pb2.GetModelResponse:
        from server.pb.scoregate.v1 import scoring_pb2 as scoring

        if model not in self._plans:
            self._plans[model] = self._remote.call(
                "/scoregate.v1.Scoring/GetModel",
                scoring.GetModelRequest(model=model),
                scoring.GetModelResponse,
            )
        return self._plans[model]


def render(advice: Advice) -> str:
    """Return advice for people."""
    return "\n".join(
        (f"{plain(advice.model)} {plain(advice.version)}: {advice.verdict}", *_lines(advice))
    )


def _lines(advice: Advice) -> Iterator[str]:
    from server.feedback.quality_loss import moment

    yield from _block("why", advice.why)
    rows = advice.rows
    told = ["no matured decision yet"]
    if rows.n_decisions:
        told = [f"decisions of {moment(rows.from_time_ms)} to {moment(rows.to_time_ms)}"]
        told += [
            f"without those of {moment(since)} to {moment(until)}: the pipeline was broken"
            for since, until in rows.without
        ]
    about = "about " if rows.is_prorated else ""
    told.append(
        f"{about}{rows.n_positive:,} positives in {about}{rows.n_decisions:,}; "
        f"{rows.n_positive_needed:,} positives needed"
    )
    yield from _block("train on", told)
    yield from _block("not known", advice.unknown)
    if advice.verdict in NEXT:
        yield from _block("next", (NEXT[advice.verdict],))


def _block(label: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield lines behind a label, folded, what a terminal would obey escaped."""
    for at, line in enumerate(lines):
        yield textwrap.fill(
            plain(line),
            WIDTH,
            initial_indent="  " + (label if not at else "").ljust(LABEL),
            subsequent_indent=" " * (LABEL + 2),
            break_on_hyphens=False,
        )
