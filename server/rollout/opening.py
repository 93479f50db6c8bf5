"""Opens the rollout of one server process, as its settings say."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.store import BatchTable
from server.config import Settings
from server.repository import Repository
from server.rollout.change import Retention
from server.rollout.journal import Journal
from server.rollout.loaded import LoadedModels
from server.rollout.plans import Describe
from server.rollout.rollout import Rollout

# Beside the models, where their names cannot be.
JOURNAL = Path(".scoregate", "journal.db")
NO_JOURNAL = "none"


def open_rollout(
    settings: Settings,
    board: PlanBoard,
    metrics: Metrics,
    describe: Describe,
    batch: Callable[[], Mapping[str, BatchTable]] = dict,
) -> Rollout:
    """Return a rollout that nothing is in force of yet.

    Parameters
    ----------
    settings
        The repository, the journal and how long the past is kept.
    board, metrics, describe, batch
        See `Rollout`.

    Raises
    ------
    StartError
        The repository is not there.
    JournalError
        The journal cannot be opened.
    """
    repository = Repository(Path(settings.repository))
    repository.models()  # a journal must not make the directory that was mistyped
    rollout = settings.rollout
    with ExitStack() as failing:
        closing = ExitStack()
        failing.callback(closing.close)
        if forgets(settings):
            folder = tempfile.mkdtemp(prefix="scoregate-journal-")
            closing.callback(shutil.rmtree, folder, ignore_errors=True)
            path = Path(folder, JOURNAL.name)
        else:
            path = Path(rollout.journal or repository.path / JOURNAL)
        journal = Journal(path)
        closing.callback(journal.close)
        models = LoadedModels(repository, metrics, settings.fast.loops)
        closing.callback(models.close)
        failing.pop_all()
    return Rollout(
        repository,
        board,
        models,
        journal,
        describe,
        batch=batch,
        retention=Retention(rollout.keep_plans, rollout.keep_s),
        closing=closing,
    )


def forgets(settings: Settings) -> bool:
    """Return whether nothing shall be remembered across restarts."""
    # What a settings file says counts from the file's directory: only the name is ours.
    return Path(settings.rollout.journal).name == NO_JOURNAL
