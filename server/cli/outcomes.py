"""`scoregate outcomes load`: what turned out to be true, from a file to a running server.

Rows go out in batches of 5,000, a few of them on the way at a time: the server is asked for no more
than it has room for, and a file of any size needs no memory here. An outcome may be sent again: the
server counts it once. So a load that was cut off is simply started anew.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.lines import table
from server.cli.remote import EXIT_CODES, Remote, remote_options

if TYPE_CHECKING:
    from server.feedback.source import Outcome, OutcomeFile
    from server.pb.scoregate.v1 import feedback_pb2 as pb

SERVICE_METHOD = "/scoregate.v1.Feedback/ReportOutcomes"
BATCH_ROWS = 5000
IN_FLIGHT = 4  # batches
MAX_TOLD = 10  # bad rows
COUNTS = (
    ("accepted", "on the server's disk"),
    ("unmatched", "of those: no decision is known (yet); they wait for it"),
    ("expired", "of the unmatched: of a time that is no longer remembered"),
    ("duplicates", "of those: said the same before"),
    ("revised", "of those: said otherwise before"),
    ("rejected", "not usable"),
)
_PLACE = re.compile(r"outcomes\[(\d+)\] ")


@dataclass(slots=True)
class Loaded:
    """What a load came to."""

    counts: dict[str, int] = field(default_factory=lambda: {name: 0 for name, _ in COUNTS})
    n_rows: int = 0
    told: list[str] = field(default_factory=list)  # the first rows that cannot be used

    def reject(self, why: str, n: int = 1) -> None:
        """Count rows that cannot be used."""
        self.counts["rejected"] += n
        if len(self.told) < MAX_TOLD:
            self.told.append(why)


@click.group()
def outcomes() -> None:
    """Tell the server what came of its decisions.

    An outcome is a request id and a label: was it fraud or not. The server joins it with the
    decision that it recorded; `scoregate quality` shows what follows. docs/feedback.md says how.
    """


@outcomes.command(epilog=f"1, too: a row was rejected, and no --lenient. {EXIT_CODES}")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--id-column", metavar="NAME", help="Column of request ids.  [default: request_id]")
@click.option("--label-column", metavar="NAME", help="Column of labels.  [default: label]")
@click.option("--model-column", metavar="NAME", help="Column of models.  [default: model, if any]")
@click.option(
    "--amount-column", metavar="NAME", help="What it was about.  [default: amount, if any]"
)
@click.option(
    "--time-column", metavar="NAME", help="When it was observed.  [default: time, if any]"
)
@click.option("--source-column", metavar="NAME", help="Who says so.  [default: source, if any]")
@click.option(
    "--model", default="", help="Model of rows that say none.  [default: whichever decided]"
)
@click.option("--source", default="", help='Source of rows that say none: "chargeback" ...')
@click.option("--positive", multiple=True, metavar="NAME", help="A label that means 1. Repeatable.")
@click.option("--negative", multiple=True, metavar="NAME", help="A label that means 0. Repeatable.")
@click.option("--lenient", is_flag=True, help="Exit with 0 although rows were rejected.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@remote_options
def load(
    remote: Remote,
    file: Path,
    *,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    model: str,
    source: str,
    lenient: bool,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Report the outcomes of a CSV, Parquet or JSON lines FILE.

    Columns: request_id and label (0 or 1, true or false, fraud or genuine, retracted); and, where
    the file has them, model, amount, time (ISO 8601, or milliseconds since the epoch) and source.

    \b
    Example:
      scoregate outcomes load chargebacks.csv --id-column txn --label-column is_fraud \\
        --time-column reported_at --source chargeback

    Rows that cannot be used are named and left out; the others are reported. The same file may be
    loaded again: every outcome counts once.
    """  # noqa: D301 - click's mark for a paragraph that is not wrapped
    from server.feedback.source import NEGATIVE, POSITIVE, OutcomeFile

    given = {
        "request_id" if name == "id_column" else name.removesuffix("_column"): column
        for name, column in columns.items()
        if column is not None
    }
    labels = {**dict.fromkeys(positive, POSITIVE), **dict.fromkeys(negative, NEGATIVE)}
    opened = OutcomeFile(file, columns=given, labels=labels, model=model, source=source)
    loaded = _run(remote, opened, quiet=as_json)
    if as_json:
        document = {"rows": loaded.n_rows, **loaded.counts, "first_rejected": loaded.told}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(render(loaded))
    for line in loaded.told:
        click.echo(f"{file}: {line}", err=True)
    n_more = loaded.counts["rejected"] - len(loaded.told)
    if loaded.told and n_more > 0:
        click.echo(f"{file}: and {n_more:,} more", err=True)
    if loaded.counts["rejected"] and not lenient:
        sys.exit(1)


def render(loaded: Loaded) -> str:
    """Return the counts as a table."""
    rows = [("rows", f"{loaded.n_rows:,}", "in the file")]
    rows += [(name, f"{loaded.counts[name]:,}", what) for name, what in COUNTS]
    return table(rows, right=(1,))


def _run(remote: Remote, file: OutcomeFile, *, quiet: bool) -> Loaded:
    if quiet:
        return send(remote, file, lambda: None)
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("outcomes", total=file.n_bytes)
        return send(remote, file, lambda: progress.update(task, completed=file.n_bytes_read))


def send(remote: Remote, file: OutcomeFile, on_progress: Callable[[], None]) -> Loaded:
    """Report every row of a file.

    Raises
    ------
    InputError
        The file cannot be read to its end; what was acknowledged before stays.
    CallError
        The server is not there, or refuses.
    """
    from server.pb.scoregate.v1 import feedback_pb2 as pb

    loaded = Loaded()
    sender = _Sender(file, loaded)
    try:
        for answer in remote.exchange(SERVICE_METHOD, sender.requests(), pb.ReportOutcomesResponse):
            sender.take(answer)
            on_progress()
    finally:
        sender.end()
    if sender.failure is not None:
        raise sender.failure
    return loaded


class _Sender:
    """Makes requests of rows, and keeps as many on the way as there may be."""

    def __init__(self, file: OutcomeFile, loaded: Loaded) -> None:
        self._file = file
        self._loaded = loaded
        self._room = threading.Semaphore(IN_FLIGHT)
        self._rows: deque[list[int]] = deque()  # of the batches on the way
        self._is_over = False
        self.failure: Exception | None = None  # grpc's thread makes requests: it is raised here

    def requests(self) -> Iterator[pb.ReportOutcomesRequest]:
        """Yield the file's batches; called by grpc, on a thread of its own."""
        try:
            batch: list[Outcome] = []
            for one in self._file.rows():
                if self._is_over:
                    return
                self._loaded.n_rows += 1
                if len(one) == 2:
                    self._loaded.reject(f"row {one.row}: {one[1]}")
                    continue
                batch.append(one)
                if len(batch) == BATCH_ROWS:
                    yield self._request(batch)
                    batch = []
            if batch:
                yield self._request(batch)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is raised by `send`
            self.failure = error

    def end(self) -> None:
        """Make no more requests."""
        self._is_over = True
        self._room.release()

    def take(self, answer: pb.ReportOutcomesResponse) -> None:
        """Add up an answer, and make room for the next request."""
        rows = self._rows.popleft()
        for name, _ in COUNTS[:-1]:
            self._loaded.counts[name] += getattr(answer, name)
        if answer.rejected:
            found = _PLACE.match(answer.first_rejected)
            where = f"row {rows[int(found[1])]}" if found else f"rows {rows[0]} to {rows[-1]}"
            why = answer.first_rejected[found.end() if found else 0 :]
            more = f" (and {answer.rejected - 1:,} more near it)" if answer.rejected > 1 else ""
            self._loaded.reject(f"{where}: {why}{more}", answer.rejected)
        self._room.release()

    def _request(self, batch: list[Outcome]) -> pb.ReportOutcomesRequest:
        from server.pb.scoregate.v1 import feedback_pb2 as pb

        self._room.acquire()
        self._rows.append([one.row for one in batch])
        request = pb.ReportOutcomesRequest()
        for one in batch:
            request.outcomes.add(
                request_id=one.request_id,
                model=one.model,
                label=one.label,
                observed_time_ms=one.time_ms,
                amount=one.amount,
                source=one.source,
            )
        return request
