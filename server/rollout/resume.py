"""The first plan of a process that has a journal: the last one, or the last that can be served."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from fastpath.errors import FastpathError
from server.errors import ScoregateError, StartError
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from server.rollout.state import PlanState

log = logging.getLogger(__name__)


class NothingServableError(StartError):
    """Of the plans that the journal remembers, none can be served."""


def serve_remembered(
    journal: Journal,
    last: Entry,
    publish: Callable[[PlanState], None],
    recover: Callable[[int, PlanState], None],
) -> None:
    """Serve the newest journaled plan that can be; all but the newest is a recovery, and loud.

    Parameters
    ----------
    journal
        What is remembered.
    last
        Its newest entry.
    publish
        Serves a plan as it was; raises where it cannot be served.
    recover
        Makes a new plan with the content that a generation had; raises where it cannot be served.

    Raises
    ------
    NothingServableError
        None of them can; it says what to do.
    """
    try:
        publish(last.state)
    except (ScoregateError, FastpathError) as error:
        newest_error = error
        log.error("generation %d cannot be served again: %s", last.generation, error)
    else:
        log.info("resumed generation %d of the journal", last.generation)
        return
    for entry in journal.walk(last.generation):
        try:
            recover(entry.generation, replace(entry.state, frozen=last.state.frozen))
        except (ScoregateError, FastpathError) as error:
            log.error("generation %d cannot be served again: %s", entry.generation, error)
        else:
            log.error(
                "RECOVERED: serving the content of generation %d instead of %d; see why above, "
                "mend it, and roll back to %d",
                entry.generation, last.generation, last.generation,
            )  # fmt: skip
            return
    raise NothingServableError(
        f"no plan of the journal can be served; the newest, generation {last.generation}: "
        f"{newest_error}. Mend that, then `scoregate rollback --to {last.generation}`; or "
        "`scoregate deploy MODEL VERSION --traffic 100` with a version that can be served"
    )
