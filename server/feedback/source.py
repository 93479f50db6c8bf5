"""Outcomes in a file: CSV, Parquet or JSON lines, read row by row, a batch at a time.

Errors name file and row, counted from 1 without a CSV's heading. What becomes of a cell:

- request id: text; a whole number is written in decimal digits.
- label: 1, true, yes, positive, fraud; 0, false, no, negative, genuine, legitimate; retracted; and
  the names that the caller adds. Case does not matter.
- time: ISO 8601 (without a zone: UTC), a timestamp, or whole milliseconds since the epoch.
- amount: a number from 0. Empty and null mean "not said", but for id and label.

Never imported by the serving process: Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from server.errors import InputError

COLUMNS = ("request_id", "label", "model", "amount", "time", "source")
NEEDED = ("request_id", "label")
NEGATIVE, POSITIVE, RETRACTED = 1, 2, 3  # scoregate.v1.Label
NAMES = {
    **dict.fromkeys(("1", "true", "yes", "positive", "fraud"), POSITIVE),
    **dict.fromkeys(("0", "false", "no", "negative", "genuine", "legitimate"), NEGATIVE),
    "retracted": RETRACTED,
}
MAX_ID_BYTES = 128
MAX_ROW_BYTES = 1 << 20
PARQUET_ROWS = 10_000

Cell = Any  # of a file: text, number, truth value, time or None
Row = tuple[Cell, Cell, Cell, Cell, Cell, Cell]  # in the order of COLUMNS


class Outcome(NamedTuple):
    """One row that can be used, as scoregate.v1.Outcome has it."""

    row: int
    request_id: str
    label: int
    model: str
    amount: float  # 0: not said
    time_ms: int  # 0: not said
    source: str


class BadRow(NamedTuple):
    """One row that cannot."""

    row: int
    why: str


class OutcomeFile:
    """A file of outcomes.

    Parameters
    ----------
    path
        Ends in .csv, .parquet, .pq, .jsonl or .ndjson.
    columns
        Name in COLUMNS -> the file's own; the others have the names of COLUMNS.
    labels
        Further names of labels -> NEGATIVE, POSITIVE or RETRACTED.
    model, source
        Of rows that say none.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Mapping[str, str] | None = None,
        labels: Mapping[str, int] | None = None,
        model: str = "",
        source: str = "",
    ) -> None:
        self.path = path
        self._given = dict(columns or {})
        self._labels = {**NAMES, **{name.lower(): one for name, one in (labels or {}).items()}}
        self._model, self._source = model, source
        kinds = {
            ".csv": self._csv, ".parquet": self._parquet, ".pq": self._parquet,
            ".jsonl": self._json_lines, ".ndjson": self._json_lines,
        }  # fmt: skip
        suffix = path.suffix.lower()
        if suffix not in kinds:
            raise InputError(f"{path}: name a .csv, .parquet or .jsonl file")
        self._read = kinds[suffix]
        try:
            self.n_bytes = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        self.n_bytes_read = 0  # about; of Parquet by rows

    def rows(self) -> Iterator[Outcome | BadRow]:
        """Yield every row, usable or not.

        Raises
        ------
        InputError
            The file cannot be read, or not further than to a row.
        """
        row = 0
        try:
            for row, cells in enumerate(self._read(), 1):
                yield BadRow(row, cells) if isinstance(cells, str) else self._outcome(row, cells)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{self.path}: cannot be read behind row {row}: {error}") from None

    # ------------------------------------------------------------------ formats

    def _places(self, names: Sequence[str]) -> list[int]:
        """Return where the columns are; -1: not there."""
        places = []
        for column in COLUMNS:
            name = self._given.get(column, column)
            if name in names:
                places.append(list(names).index(name))
            elif column in NEEDED or column in self._given:
                option = "--" + column.removeprefix("request_") + "-column"
                there = ", ".join(map(repr, names))
                raise InputError(
                    f"{self.path}: no column {name!r} ({option} names another); there are {there}"
                )
            else:
                places.append(-1)
        return places

    def _csv(self) -> Iterator[Row | str]:
        with self.path.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            reader = csv.reader(text)
            names = next(reader, None)
            if not names:
                raise InputError(f"{self.path}: empty; a line with the names of columns is needed")
            places = self._places(names)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    yield f"{len(cells)} cells; the heading has {len(names)}"
                    continue
                found = [None if at < 0 or not cells[at] else cells[at] for at in places]
                yield (found[0], found[1], found[2], found[3], found[4], found[5])
                self.n_bytes_read = raw.tell()

    def _json_lines(self) -> Iterator[Row | str]:
        names = [self._given.get(column, column) for column in COLUMNS]
        decoder = msgspec.json.Decoder(dict[str, Any])
        with self.path.open("rb") as file:
            while line := file.readline(MAX_ROW_BYTES):
                self.n_bytes_read += len(line)
                if not line.strip():
                    continue
                try:
                    row = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    yield f"not a JSON object: {error}"
                    continue
                found = [row.get(name) for name in names]
                yield (found[0], found[1], found[2], found[3], found[4], found[5])

    def _parquet(self) -> Iterator[Row | str]:
        import pyarrow as pa
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                names = list(file.schema_arrow.names)
                places = self._places(names)
                wanted = [names[at] for at in places if at >= 0]
                n_rows, done = max(1, file.metadata.num_rows), 0
                for batch in file.iter_batches(PARQUET_ROWS, columns=wanted, use_threads=False):
                    nothing = [None] * batch.num_rows
                    yield from zip(
                        *(
                            nothing if at < 0 else batch.column(names[at]).to_pylist()
                            for at in places
                        ),
                        strict=True,
                    )
                    done += batch.num_rows
                    self.n_bytes_read = self.n_bytes * done // n_rows
        except pa.ArrowException as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from None

    # -------------------------------------------------------------------- cells

    def _outcome(self, row: int, cells: Row) -> Outcome | BadRow:
        request_id, label, model, amount, time, source = cells
        try:
            return Outcome(
                row,
                _id(request_id),
                self._label(label),
                self._model if model is None else str(model),
                0.0 if amount is None else _amount(amount),
                0 if time is None else _time_ms(time),
                self._source if source is None else str(source),
            )
        except ValueError as error:
            return BadRow(row, str(error))

    def _label(self, cell: Cell) -> int:
        if isinstance(cell, float) and cell in (0.0, 1.0):
            cell = int(cell)
        text = str(cell).strip().lower()
        found = self._labels.get("" if cell is None else text) or self._labels.get(_whole(text))
        if found is None:
            raise ValueError(
                f"label {_shown(cell)}: 0 or 1, a known name, or one that --positive or "
                "--negative names"
            )
        return found


def _id(cell: Cell) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    if not isinstance(cell, str) or not 1 <= len(cell.encode(errors="replace")) <= MAX_ID_BYTES:
        raise ValueError(f"request id {_shown(cell)}: text of 1 to {MAX_ID_BYTES} bytes")
    return cell


def _amount(cell: Cell) -> float:
    try:
        amount = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        amount = math.nan
    if not 0.0 <= amount < math.inf:
        if isinstance(cell, float) and math.isnan(cell):
            return 0.0  # how pandas writes "not said"
        raise ValueError(f"amount {_shown(cell)}: a number from 0")
    return amount


def _time_ms(cell: Cell) -> int:
    if isinstance(cell, str):
        text = cell.strip()
        if text.isascii() and text.isdigit():
            return int(text)
        try:
            cell = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"time {_shown(cell)}: ISO 8601, or milliseconds since the epoch"
            ) from None
    if isinstance(cell, datetime):
        moment = cell if cell.tzinfo else cell.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(cell, date):
        return round(datetime(cell.year, cell.month, cell.day, tzinfo=UTC).timestamp() * 1000)
    if isinstance(cell, int) and not isinstance(cell, bool) and cell >= 0:
        return cell
    raise ValueError(f"time {_shown(cell)}: ISO 8601, or milliseconds since the epoch")


def _whole(text: str) -> str:
    """Return "1" for "1.0": how a column of whole numbers with gaps is written."""
    return text.removesuffix(".0")


def _shown(cell: Cell) -> str:
    text = ascii(cell)
    return text if len(text) <= 60 else f"{text[:57]}..."
