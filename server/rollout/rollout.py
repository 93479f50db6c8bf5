"""Changing what serves: decide, load, write down, publish; and all of it back again.

Rules
-----
* A change is one step from one state to the next. Models are loaded and proven and the plan is
  built before anything is written; the change is on disk before it is in force; whatever fails
  before that leaves what serves untouched, and says why.
* Changes happen one after the other. One that was decided on another generation than the one in
  force is refused (ABORTED), and so is every change but a rollback while changes are frozen.
* A generation belongs to one plan for ever; a rollback is a new generation with an earlier
  content.
* When a change returns, no answer of the plan before it is on its way any more.
* Where no plan of the journal can be served, the next one is made of the last: by a rollback, once
  what it needs is back, or by a deployment, which leaves out what cannot be served (see `mend`).
* Models of earlier plans stay in memory for a number of plans and a time, so that going back reads
  nothing.

How it starts: with the journal's last state, exactly; where that cannot be served, with the last
one before it that can, loudly. Without a journal, with the newest versions in the repository.

What it does not do: decide. Operators and their tools do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from fastpath.errors import FastpathError
from fastpath.plan import PlanBoard
from fastpath.store import BatchTable
from server.errors import ChangeError, ConflictError, ScoregateError
from server.memory import trim
from server.repository import Repository
from server.rollout import changes
from server.rollout.arms import Changed
from server.rollout.change import SERVER, Author, Outcome, Retention, check_conditions
from server.rollout.first import first_state
from server.rollout.journal import Entry, Journal
from server.rollout.loaded import Key, LoadedModels
from server.rollout.plans import Describe, Served, ServedArm, build, keys_of
from server.rollout.resume import NothingServableError as NothingServableError
from server.rollout.resume import serve_remembered
from server.rollout.state import ModelState, PlanState

# How long a change waits for the replaced plan's last answers.
RETIRE_S = 10.0

log = logging.getLogger(__name__)


class Rollout:
    """What serves, and every way to change it. Safe from any thread.

    Parameters
    ----------
    repository
        Where bundles are.
    board
        Where plans are published.
    models
        Models in memory.
    journal
        What is remembered.
    describe
        Encodes what GetModel answers.
    batch
        Returns the batch tables of stored features that a new plan shall read.
    retention
        How long earlier plans' models are kept.
    closing
        What `close` ends.
    """

    def __init__(
        self,
        repository: Repository,
        board: PlanBoard,
        models: LoadedModels,
        journal: Journal,
        describe: Describe,
        *,
        batch: Callable[[], Mapping[str, BatchTable]] = dict,
        retention: Retention | None = None,
        closing: ExitStack | None = None,
    ) -> None:
        self.repository = repository
        self.models = models
        self.journal = journal
        self._board = board
        self._describe = describe
        self._batch = batch
        self._retention = retention or Retention()
        self._closing = closing or ExitStack()
        self._changing = threading.Lock()
        self._served: Served | None = None
        self._pinned: set[Key] = set()
        self._listeners: list[Callable[[Entry], None]] = []

    def close(self) -> None:
        """Let go of the journal and of the loader; what is in force stays in force."""
        self._closing.close()

    # ------------------------------------------------------------ what serves

    @property
    def served(self) -> Served | None:
        """What is in force; None while nothing is."""
        return self._served

    @property
    def arms(self) -> Sequence[ServedArm]:
        """Every arm that takes part."""
        served = self._served
        return [] if served is None else served.arms

    @property
    def generation(self) -> int:
        """Generation of the plan in force; 0 while there is none."""
        served = self._served
        return 0 if served is None else served.state.generation

    @property
    def default_model(self) -> str:
        """Name of the model of requests that name none; empty while nothing serves."""
        served = self._served
        return "" if served is None else served.state.default_model

    @property
    def frozen(self) -> str:
        """Why changes are refused; empty: they are not."""
        if self._served is not None:
            return self._served.state.frozen
        last = self.journal.last()
        return "" if last is None else last.state.frozen

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Call `listener` after every change, on the changing thread; it must not block."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[Entry], None]) -> None:
        """Stop calling a listener."""
        self._listeners.remove(listener)

    # ------------------------------------------------------------------ start

    def start(self, wanted: Sequence[str], default_model: str = "", *, resume: bool = True) -> None:
        """Put the first plan of this process in force.

        Parameters
        ----------
        wanted
            "MODEL" or "MODEL@VERSION", for models that the journal does not know; empty: the newest
            version of every model in the repository.
        default_model
            Model of requests that name none, where there is no journal.
        resume
            False: start from `wanted`, whatever the journal says.

        Raises
        ------
        StartError, BundleError
            Nothing to serve, or something cannot be.
        NothingServableError
            The journal has plans, and none of them can be served.
        """
        with self._changing:
            last = self.journal.last() if resume else None
            try:
                if last is None:
                    state = first_state(self.repository, self.models, wanted, default_model)
                    self._put_in_force("start", {"models": list(wanted)}, state, SERVER)
                else:
                    serve_remembered(
                        self.journal,
                        last,
                        lambda state: self._publish(self._build(state)),
                        self._recover,
                    )
            finally:
                self.models.stand_back()

    def _recover(self, generation: int, state: PlanState) -> None:
        self._put_in_force("recover", {"generation": generation}, state, SERVER)

    def renew_tables(self) -> None:
        """Publish the same state with the newest batch tables of stored features."""
        tables = {group: table.generation for group, table in self._batch().items()}
        with self._changing:
            if self._served is not None:
                self._put_in_force("features", tables, self._served.state, SERVER)

    # ------------------------------------------------------- models in memory

    def load(self, model: str, version: str = "") -> tuple[ServedArm | None, Key]:
        """Load a version and keep it loaded; returns its arm, where it serves, and its key."""
        state = self.state()
        name = model or state.default_model
        loaded = self.models.get(name, version_of(state.model(name), version))
        with self._changing:
            self._pinned.add(loaded.key)
        serving = (arm for arm in self.arms if arm.loaded.key == loaded.key)
        return next(serving, None), loaded.key

    def unload(self, model: str, version: str) -> int:
        """Stop keeping a version in memory; returns the bytes that its engine held.

        Raises
        ------
        ChangeError
            It serves, or is not loaded.
        """
        state = self.state()
        name = model or state.default_model
        version = version_of(state.model(name), version)
        with self._changing:
            loaded = self.models.peek(name, version)
            if loaded is None:
                raise ChangeError(f"model {name}: version {version} is not loaded")
            if loaded.key in keys_of([self.state()]):
                raise ChangeError(
                    f"model {name}: version {version} serves; take it out of service first "
                    "(promote another, or retire it)"
                )
            self._pinned.discard(loaded.key)
            resident_bytes = loaded.content.resident_bytes
            self.models.keep({other.key for other in self.models.all()} - {loaded.key})
        trim()
        return resident_bytes

    def keep(self, extra: set[Key]) -> None:
        """Drop models that neither the plan, nor an earlier one, nor a pin, nor `extra` needs."""
        with self._changing:
            if self._drop(extra):
                trim()

    # --------------------------------------------------------------- the step

    def state(self) -> PlanState:
        """Return the state in force; where none is, the last one that was, to be mended.

        Raises
        ------
        ConflictError
            Nothing ever was.
        """
        if self._served is not None:
            return self._served.state
        last = self.journal.last()
        if last is None:
            raise ConflictError("nothing is in force yet; ask /readyz on the sidecar port why")
        return last.state

    def change(
        self,
        author: Author,
        verb: str,
        arguments: Mapping[str, Any],
        change: Callable[[PlanState], Changed],
        *,
        mends: bool = False,
    ) -> Outcome:
        """Make one change of what serves.

        Parameters
        ----------
        author
            Who, why, and under which conditions.
        verb, arguments
            For the journal.
        change
            Makes the new state of the one in force; called while no other change is made.
        mends
            Where nothing is in force, models that cannot be served leave the plan, and changes
            that are frozen do not stand in the way.

        Raises
        ------
        ConflictError
            Another generation is in force than expected, or changes are frozen.
        ChangeError
            The change makes no sense.
        StartError, BundleError, PlanError
            What it needs cannot be served.
        JournalError
            It cannot be written down.
        """
        with self._changing:
            before = self.state()
            is_mending = mends and self._served is None
            check_conditions(author, before, verb, ignore_freeze=is_mending)
            changed = change(before)
            if is_mending:
                changed = self._mended(before, changed)
            moved = changes.n_buckets_moved(before, changed.state)
            if author.dry_run:
                after = msgspec.structs.replace(changed.state, generation=0)
                return Outcome(before, after, moved, changed.notes, dry_run=True)
            if changed.state == before and self._served is not None:
                notes = (*changed.notes, "nothing to change: this is what serves already")
                return Outcome(before, before, 0, notes)
            after = self._put_in_force(verb, arguments, changed.state, author)
            return Outcome(before, after, moved, changed.notes)

    def problem_of(self, model: ModelState | None) -> str:
        """Return why a model cannot be served as it was, where nothing is in force; else nothing.

        It is asked by a change of its `change`: no other change is made meanwhile.
        """
        if model is None or self._served is not None:
            return ""
        try:
            self._build(PlanState(generation=1, default_model=model.name, models=(model,)))
        except (ScoregateError, FastpathError) as error:
            return str(error)
        return ""

    def _mended(self, before: PlanState, changed: Changed) -> Changed:
        """Return a change without the models that cannot be served, if they are not its own."""
        problems = {
            model.name: self.problem_of(model)
            for model in changed.state.models
            if model == before.model(model.name)
        }
        left = changes.leave_out(
            changed.state, {name: problem for name, problem in problems.items() if problem}
        )
        notes = (*changed.notes, *left.notes)
        if before.frozen:
            notes += (f"nothing was in force; changes stay frozen: {before.frozen}",)
        return Changed(left.state, notes)

    def _put_in_force(
        self, verb: str, arguments: Mapping[str, Any], state: PlanState, author: Author
    ) -> PlanState:
        """Build, write down, publish. The lock is held; raises before anything is changed."""
        before = self._served
        generation = max(self.journal.next_generation(), self.generation + 1)
        after = msgspec.structs.replace(state, generation=generation)
        built = self._build(after)
        entry = Entry(
            generation=generation,
            time_ms=time.time_ns() // 1_000_000,
            who=author.who,
            is_verified=author.is_verified,
            verb=verb,
            arguments=dict(arguments),
            why=author.why,
            before_generation=0 if before is None else before.state.generation,
            state=after,
        )
        entry = self.journal.append(entry)
        self._publish(built)
        log.info("generation %d: %s by %s", generation, verb, author.who)
        for listener in list(self._listeners):
            try:
                listener(entry)
            except Exception:
                # The change is in force: whoever wanted to know must not make it look failed.
                log.exception("a listener failed to take generation %d", generation)
        return after

    def _build(self, state: PlanState) -> Served:
        return build(state, self.models.get, self.repository, self._describe, self._batch())

    def _publish(self, built: Served) -> None:
        before = self._served
        self._board.publish(built.plan)
        self._served = built
        if before is not None:
            self._retention.replaced(before.state)
            del before
        if not self._board.wait_retired(RETIRE_S):
            log.warning("calls of an earlier plan are still being answered")
        if self._drop(set()):
            trim()

    def _drop(self, extra: set[Key]) -> bool:
        states = self._retention.states()
        if self._served is not None:
            states.append(self._served.state)
        return bool(self.models.keep(keys_of(states) | self._pinned | extra))


def version_of(model: ModelState | None, version: str) -> str:
    """Return the version that a label names, or the name itself."""
    return version if model is None else model.labels.get(version, version)
