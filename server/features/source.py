"""A table of features in a file, Parquet or CSV, read a batch at a time.

Errors name file, column and row (counted from 0, without a CSV's heading). What becomes of a cell:

- id: text, or a whole number written in decimal digits; null and empty are errors.
- time: a timestamp (without a zone: UTC), a date, or whole milliseconds since the epoch.
- numeric: a number; null is "no value". boolean: true and false, or 0 and 1.
- categorical: a text becomes its code in the schema's vocabulary, a number is a code; an unseen
  text is "no value" and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.errors import InputError
from server.features.groups import Definition


class Rows(NamedTuple):
    """Some rows of a file."""

    first: int  # index of the first
    entity_ids: list[str]
    event_time_ms: NDArray[np.int64]
    values: NDArray[np.float32]  # [n, columns of the group]
    n_unseen: int  # texts that the vocabulary lacks

    def __len__(self) -> int:
        return len(self.entity_ids)


def file_fingerprint(path: Path) -> str:
    """Return what tells a file from others, without reading all of it.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        state = path.stat()
        digest = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, state.st_size - (1 << 20)))
            digest.update(file.read(1 << 20))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


class FeatureFile:
    """A Parquet or CSV file with a column per column of a group, and one with ids.

    Parameters
    ----------
    path : path
        Ends in .parquet, .pq or .csv.
    definition : Definition
    id_column : str, optional
        None: the one named as the entity, with or without "_id", or "entity_id".
    time_column : str, optional
        None: all rows have `as_of_ms`.
    as_of_ms : int
        May be set until `read`.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        definition: Definition,
        *,
        id_column: str | None = None,
        time_column: str | None = None,
        as_of_ms: int = 0,
    ) -> None:
        self.path, self._definition, self.as_of_ms = path, definition, as_of_ms
        self._csv = path.suffix.lower() == ".csv"
        if not self._csv and path.suffix.lower() not in {".parquet", ".pq"}:
            raise InputError(f"{path}: name a .parquet or .csv file")
        names = self._open()
        self.id_column = id_column or self._find_id(names)
        self.time_column = time_column
        wanted = [self.id_column, *([time_column] if time_column else [])]
        self._features = [name for name, _ in definition.group.columns]
        for name in [*wanted, *self._features]:
            if name not in names:
                raise InputError(
                    f"{path}: no column {name!r}; there are {', '.join(map(repr, names))}"
                )
        self._columns = list(dict.fromkeys([*wanted, *self._features]))

    def _open(self) -> list[str]:
        """Read the head of the file; return its column names."""
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        self.n_rows: int | None = None
        try:
            if self._csv:
                with pyarrow.csv.open_csv(self.path) as reader:
                    return list(reader.schema.names)
            with pyarrow.parquet.ParquetFile(self.path) as file:
                self.n_rows = file.metadata.num_rows
                return list(file.schema_arrow.names)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error

    def _find_id(self, names: list[str]) -> str:
        entity = self._definition.group.entity.lower()
        found = [name for name in names if name.lower() in {f"{entity}_id", entity, "entity_id"}]
        if len(found) != 1:
            raise InputError(
                f"{self.path}: which column holds the {entity} ids? say --id-column; there are "
                f"{', '.join(map(repr, names))}"
            )
        return found[0]

    def read(self, batch_size: int, *, skip: int = 0) -> Iterator[Rows]:
        """Yield the rows behind the first `skip`, up to `batch_size` at a time.

        Raises
        ------
        InputError
            A cell cannot be used; rows before its batch have been yielded.
        """
        import pyarrow as pa

        first = 0
        try:
            for batch in self._batches(batch_size):
                n = batch.num_rows
                if first + n > skip:
                    behind = max(0, skip - first)
                    yield self._rows(batch.slice(behind), first + behind)
                first += n
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path}: cannot be read behind row {first}: {error}") from error

    def _batches(self, batch_size: int) -> Iterator[Any]:
        import pyarrow.csv
        import pyarrow.parquet

        if not self._csv:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                yield from file.iter_batches(batch_size, columns=self._columns, use_threads=False)
            return
        text = pyarrow.string()
        kinds: dict[str, Any] = {self.id_column: text}
        kinds |= {
            name: text for name, kind in self._definition.group.columns if kind == "categorical"
        }
        options = pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=self._columns)
        block = pyarrow.csv.ReadOptions(block_size=8 << 20)
        with pyarrow.csv.open_csv(self.path, read_options=block, convert_options=options) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, batch_size):
                    yield batch.slice(start, batch_size)

    def _rows(self, batch: Any, first: int) -> Rows:
        ids = self._ids(batch.column(self.id_column), first)
        times = np.full(len(ids), self.as_of_ms, dtype=np.int64)
        if self.time_column:
            times = self._times(batch.column(self.time_column), first)
        values = np.empty((len(ids), len(self._features)), dtype=np.float32)
        n_unseen = 0
        for j, (name, kind) in enumerate(self._definition.group.columns):
            column, unseen = self._values(batch.column(name), name, kind, first)
            with np.errstate(over="ignore"):
                values[:, j] = column
            n_unseen += unseen
        return Rows(first, ids, times, values, n_unseen)

    def _refuse(self, column: str, row: int, value: object, why: str) -> InputError:
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        return InputError(f"{self.path}: column {column!r}, row {row}: {shown} {why}")

    def _ids(self, column: Any, first: int) -> list[str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise self._refuse(self.id_column, first + row, None, "is no entity id")
        kind = column.type
        if pa.types.is_integer(kind):
            column = pc.cast(column, pa.string())
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(
                f"{self.path}: column {self.id_column!r} is {kind}: ids are text or whole numbers"
            )
        lengths = pc.binary_length(column).to_numpy(zero_copy_only=False)
        bad = (lengths < 1) | (lengths > 256)
        if bad.any():
            row = int(np.argmax(bad))
            why = f"has {lengths[row]} bytes; an id has 1 to 256"
            raise self._refuse(self.id_column, first + row, column[row].as_py(), why)
        ids: list[str] = column.to_pylist()
        return ids

    def _times(self, column: Any, first: int) -> NDArray[np.int64]:
        import pyarrow as pa
        import pyarrow.compute as pc

        name = str(self.time_column)
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise self._refuse(name, first + row, None, "is no time")
        kind = column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            column = pc.cast(column, pa.timestamp("ms"), safe=False)
        elif not pa.types.is_integer(kind):
            raise InputError(
                f"{self.path}: column {name!r} is {kind}: times are timestamps, dates, or whole "
                "milliseconds since the epoch"
            )
        times: NDArray[np.int64] = pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False)
        return times

    def _values(
        self, column: Any, name: str, kind: str, first: int
    ) -> tuple[NDArray[np.floating[Any]], int]:
        """Return a column as floats, and how many texts no vocabulary holds."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            if kind == "categorical":
                return self._codes(column, name)
            numbers = pc.cast(column, pa.string()).to_pylist()
            for row, text in enumerate(numbers):
                try:
                    float("nan" if text is None else text)
                except ValueError:
                    raise self._refuse(name, first + row, text, f"is not {kind}") from None
            return np.array([float("nan" if t is None else t) for t in numbers]), 0
        if pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type):
            column = pc.cast(column, pa.float64())
        if not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_null(column.type)
        ):
            raise InputError(f"{self.path}: column {name!r} is {column.type}: {kind} is needed")
        numbers = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if kind == "boolean":
            bad = ~(np.isnan(numbers) | (numbers == 0) | (numbers == 1))
            if bad.any():
                row = int(np.argmax(bad))
                raise self._refuse(name, first + row, float(numbers[row]), "is not 0 or 1")
        return numbers, 0

    def _codes(self, column: Any, name: str) -> tuple[NDArray[np.float64], int]:
        import pyarrow as pa
        import pyarrow.compute as pc

        words = self._definition.vocabularies.get(name)
        if words is None:
            raise InputError(
                f"{self.path}: column {name!r} holds text, and no feature of the schema has a "
                "vocabulary for it: write codes (0, 1, ...)"
            )
        column = pc.cast(column, pa.string())
        found = pc.index_in(column, pa.array(words, pa.string()))
        n_unseen = found.null_count - column.null_count
        return pc.cast(found, pa.float64()).to_numpy(zero_copy_only=False), n_unseen
