"""`scoregate drift`: what monitoring says of the rows that are scored."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from server.cli.remote import EXIT_CODES, Remote, json_option, remote_options, to_json
from server.errors import InputError


@click.group()
def drift() -> None:
    """Look at how far what is scored now is from what a model was validated on."""


@drift.command(
    epilog=f"{EXIT_CODES} With --fail-on: 1 also where a version is in that state or a graver one."
)
@click.argument("model", default="")
@click.argument("version", default="")
@click.option("--all", "all_features", is_flag=True, help="Print every feature, not ten.")
@click.option(
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write one HTML page with plots; it needs no network.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "retrain", "broken"]),
    help="End with exit code 1 where a version is in this state or a graver one: for scripts. "
    "Warming and unwatched versions do not fail.",
)
@json_option
@remote_options
def report(
    remote: Remote,
    model: str,
    version: str,
    all_features: bool,
    page: Path | None,
    fail_on: str | None,
    as_json: bool,
) -> None:
    """Show the state of drift: which features moved, how far, and how.

    \b
    scoregate drift report
    scoregate drift report fraud 2 --html drift.html
    scoregate drift report --fail-on retrain || echo "train again"

    One section per version that takes part. The distance is Kolmogorov-Smirnov's D of numbers (KS)
    or the Jensen-Shannon distance of categories (JS), from 0 to 1; it counts where chance is ruled
    out, which "critical" (of D) and p say. PSI is told and decides nothing. Missing, fallback and
    unseen are shares of rows, before and now. docs/monitoring.md explains all of it, and what to
    do in each state.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.bundle.tables import stdout_console
    from server.cli.drift_report.console import show
    from server.cli.drift_report.figures import fill_p_values, is_as_grave
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.GetDriftRequest(model=model, version=version)
    answer = remote.call("GetDrift", request, pb.GetDriftResponse)
    if page is not None:  # one at a time: histograms of many versions would not fit one message
        asked = [
            pb.GetDriftRequest(model=one.model, version=one.version, histograms=True)
            for one in answer.reports
        ]
        del answer.reports[:]
        for request in asked:
            answer.MergeFrom(remote.call("GetDrift", request, pb.GetDriftResponse))
    if not all(fill_p_values(one) for one in answer.reports):
        click.echo(
            "scoregate: p-values are computed here, and scipy is missing: pip install scipy",
            err=True,
        )
    if page is not None:
        _write(page, answer)
    if as_json:
        click.echo(to_json(answer))
    elif answer.reports:
        show(stdout_console(), answer.reports, all_features=all_features)
    else:
        click.echo("nothing is watched yet: no version takes part")
    if page is not None and not as_json:
        click.echo(f"\n{page}: written")
    if fail_on and any(is_as_grave(one, fail_on) for one in answer.reports):
        sys.exit(1)


def _write(path: Path, answer: object) -> None:
    from server.cli.drift_report.page import make_page
    from server.files import write_whole
    from server.pb.scoregate.v1 import control_pb2 as pb

    assert isinstance(answer, pb.GetDriftResponse)
    try:
        write_whole(path, make_page(answer.reports).encode())
        path.chmod(0o644)  # it is made for others to look at
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
