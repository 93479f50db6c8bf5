"""Where messages come from: the bench's own rows, a recording, a Parquet file, one file.

Rules
-----
* Requests differ: rows, entities and request ids; a run that sends one message again and again
  measures a cache.
* Where the right answer is known, the message carries it: the echo's is the message itself; a
  score's is what stock onnxruntime returns for the row, computed here, before anything is timed.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import recording
from bench.errors import SourceError
from bench.message import Message
from bench.model import MODEL_NAME, NAMES, BenchModel
from bench.scenario import OneFile, ParquetRows, Recorded, Rows, Source
from fastpath.spec import layout_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb

ECHO = "/scoregate.bench.Echo/Echo"
SCORE = "/scoregate.v1.Scoring/Score"
EVENT_TIME_MS = 1_532_000_000_000
UNKNOWN_FIELD = (1000 << 3) | 2  # length-delimited; readers must skip it


def messages(source: Source, method: str, model: Callable[[], BenchModel]) -> list[Message]:
    """Return the messages of a source, for one method.

    Parameters
    ----------
    source
        As a scenario describes it.
    method
        Path that messages without a method of their own are sent to. Messages to the echo expect
        themselves.
    model
        Makes the bench's model, for sources that need it.

    Raises
    ------
    SourceError
        A file cannot be read, or does not hold what the source says.
    """
    match source:
        case Rows():
            made = rows(source, method, model())
        case Recorded(file):
            made = recording.read(Path(file))
        case ParquetRows():
            made = [Message(method, body) for body in parquet(source)]
        case OneFile(file):
            made = [Message(method, one_file(Path(file)))]
    return [Message(m.method, m.body, m.body) if m.method == ECHO else m for m in made]


def one_file(path: Path) -> bytes:
    """Read one serialized message."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None


def rows(source: Rows, method: str, model: BenchModel) -> list[Message]:
    """Make requests of the bench's own model, all different, with their raw scores."""
    rng = np.random.default_rng(source.seed)
    chosen = rng.choice(len(model.rows), size=source.n, replace=source.n > len(model.rows))
    scores = model.raw_scores(np.ascontiguousarray(model.rows[chosen]))
    layout = layout_fingerprint([(name, "numeric") for name in NAMES])
    found = []
    for i, at in enumerate(chosen):
        request = pb.ScoreRequest(
            request_id=str(uuid.UUID(bytes=rng.bytes(16), version=4)),
            event_time_ms=EVENT_TIME_MS + int(rng.integers(0, 86_400_000)),
            model=source.models[i % len(source.models)] if source.models else "",
        )
        entity = int(rng.integers(source.n_entities))
        request.entities.add(role="payer", type="customer", id=f"customer-{entity:05d}")
        if source.form == "dense":
            request.dense.layout = layout
            request.dense.values.extend(model.rows[at].tolist())
        else:
            for name, value in zip(NAMES, model.rows[at].tolist(), strict=True):
                request.named.values[name].number = value
        body = request.SerializeToString() + padding(source.extra_bytes, rng)
        found.append(Message(method, body, expected_raw=float(scores[i])))
    ours = all(name in ("", MODEL_NAME) for name in source.models)
    return found if ours else [Message(m.method, m.body) for m in found]


def padding(n_bytes: int, rng: np.random.Generator) -> bytes:
    """Return a field that no reader knows: a message is larger by it, and means the same."""
    return b"" if n_bytes == 0 else _varint(UNKNOWN_FIELD) + _varint(n_bytes) + rng.bytes(n_bytes)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def parquet(source: ParquetRows) -> list[bytes]:
    """Make a ScoreRequest of every row of a Parquet file.

    Raises
    ------
    SourceError
        The file cannot be read, lacks a column, is empty, or a column has no usable type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.file) as file:
            table = file.read().slice(0, source.limit)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{source.file}: cannot be read as Parquet: {reason}") from None
    keys = [source.request_id, source.event_time_ms, source.routing_key]
    keys += [entity.column for entity in source.entities]
    features = source.columns or [name for name in table.column_names if name not in keys]
    lacking = [n for n in (*features, *keys) if n is not None and n not in table.column_names]
    if lacking:
        raise SourceError(
            f"{source.file}: no column {', '.join(map(repr, lacking))}; there are "
            f"{', '.join(table.column_names)}"
        )
    if not features or table.num_rows == 0:
        raise SourceError(f"{source.file}: {table.num_rows} rows of {len(features)} features")
    columns = {name: table.column(name) for name in {*features, *filter(None, keys)}}
    types = [(name, _type(source, name, columns[name].type)) for name in features]
    values = {name: column.to_pylist() for name, column in columns.items()}
    make = _dense(source, types, values) if source.form == "dense" else _named(types, values)
    return [_request(source, values, i, make) for i in range(table.num_rows)]


Fill = Callable[[pb.ScoreRequest, int], None]


def _type(source: ParquetRows, name: str, kind: Any) -> str:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "numeric"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        if source.form == "dense":
            raise SourceError(
                f"{source.file}: column {name!r} is text: a dense request holds numbers only; "
                'use form = "named"'
            )
        return "categorical"
    raise SourceError(f"{source.file}: column {name!r} is {kind}: no feature; name the columns")


def _dense(source: ParquetRows, types: Sequence[tuple[str, str]], values: dict[str, Any]) -> Fill:
    layout = layout_fingerprint(list(types))
    columns = [values[name] for name, _ in types]

    def fill(request: pb.ScoreRequest, i: int) -> None:
        request.dense.layout = layout
        request.dense.values.extend(
            float("nan") if column[i] is None else float(column[i]) for column in columns
        )

    return fill


def _named(types: Sequence[tuple[str, str]], values: dict[str, Any]) -> Fill:
    fields = {"numeric": "number", "boolean": "flag", "categorical": "text"}
    columns = [(name, fields[kind], values[name]) for name, kind in types]

    def fill(request: pb.ScoreRequest, i: int) -> None:
        for name, field, column in columns:
            if column[i] is None:
                request.named.values[name].SetInParent()
            else:
                setattr(request.named.values[name], field, column[i])

    return fill


def _request(source: ParquetRows, values: dict[str, Any], i: int, fill: Fill) -> bytes:
    request = pb.ScoreRequest(model=source.model)
    if source.request_id is not None:
        request.request_id = str(values[source.request_id][i])
    if source.event_time_ms is not None:
        when = values[source.event_time_ms][i]
        stamp = getattr(when, "timestamp", None)  # a datetime, or milliseconds already
        try:
            request.event_time_ms = int(stamp() * 1000) if stamp else int(when)
        except (TypeError, ValueError):
            raise SourceError(
                f"{source.file}: row {i}, column {source.event_time_ms!r}: {when!r} is no time"
            ) from None
    if source.routing_key is not None:
        request.routing_key = str(values[source.routing_key][i])
    for entity in source.entities:
        key = str(values[entity.column][i])
        request.entities.add(role=entity.role, type=entity.type, id=key)
    fill(request, i)
    return request.SerializeToString()


class Cache:
    """Makes each source's messages once per run of the harness."""

    def __init__(self, model: Callable[[], BenchModel]) -> None:
        self._model = functools.cache(model)
        self._made: dict[tuple[bytes, str], list[Message]] = {}

    def get(self, source: Source, method: str) -> list[Message]:
        """Return the messages of a source, for one method."""
        import msgspec

        key = (msgspec.json.encode(source), method)
        if key not in self._made:
            self._made[key] = messages(source, method, self._model)
        return self._made[key]
