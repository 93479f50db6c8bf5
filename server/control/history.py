"""GetHistory: pages of the journal, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from server.control.convert import Converter
from server.errors import InputError
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.entry import Entry
from server.rollout.journal import Journal

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
# Of an answer: clients take 4 MiB unless told otherwise, and a plan may hold many overrides. The
# page then ends early.
MAX_PAGE_BYTES = 2 << 20


def read_history(
    journal: Journal,
    converter: Converter,
    request: pb.GetHistoryRequest,
    is_wanted: Callable[[], bool],
) -> pb.GetHistoryResponse:
    """Return one page.

    Parameters
    ----------
    journal, converter
        What is read, and how it is shown.
    request
        Limit, where to go on, which model.
    is_wanted
        Whether the caller still waits: reading a long journal ends early when not.

    Raises
    ------
    InputError
        The limit is too large.
    JournalError
        The journal cannot be read.
    """
    if request.limit > MAX_LIMIT:
        raise InputError(f"limit: up to {MAX_LIMIT}, not {request.limit}; ask for the next page")
    limit = request.limit or DEFAULT_LIMIT
    answer = pb.GetHistoryResponse()
    n_bytes = 0
    entries: Iterable[Entry] = journal.walk(request.before_generation)
    if request.model:
        entries = _touching(entries, request.model)
    for entry in entries:
        if not is_wanted():
            break
        change = converter.change(entry)
        n_bytes += change.ByteSize()
        if len(answer.changes) == limit or (answer.changes and n_bytes > MAX_PAGE_BYTES):
            answer.has_more = True
            break
        answer.changes.append(change)
    return answer


def _touching(entries: Iterable[Entry], model: str) -> Iterator[Entry]:
    """Yield the entries after which a model was another than before."""
    newer: Entry | None = None
    for entry in entries:
        if newer is not None and _model(newer, model) != _model(entry, model):
            yield newer
        newer = entry
    if newer is not None and _model(newer, model) is not None:
        yield newer  # the journal's first


def _model(entry: Entry, model: str) -> object:
    return next((one for one in entry.state.models if one.name == model), None)
