"""Who decided: from slot, arm and generation, as a loop records them, to names and bins.

Rules
-----
* Decisions are drained after they were taken: those of the plan before a change come after it. So
  the plans of a while are remembered, as names; none of it keeps a model in memory.
* A plan that is not known yet is in force all the same: it is published a moment before it can be
  seen here. Its decisions wait for the next look.
* Bins are made of the reference's raw scores and of the thresholds in force. A version whose
  reference cannot be read gets an even grid, and a warning.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import FastpathError
from server.drift import load_reference
from server.errors import BundleError, ScoregateError
from server.feedback.keys import Decider, VersionKey
from server.feedback.quality.edges import score_edges
from server.repository import Repository
from server.rollout.plans import ServedArm

MAX_GENERATIONS = 64  # remembered
MAX_EDGES = 256  # kept of (version, thresholds)
# Raw scores that even bins are made of where there is no reference: log-odds of real models.
EVEN = np.linspace(-12.0, 12.0, 241, dtype=np.float32)

log = logging.getLogger(__name__)


class _Arm(NamedTuple):
    """What is remembered of an arm."""

    key: VersionKey
    cuts: tuple[float, ...]  # raw scores of its thresholds, ascending


class Deciders:
    """The arms of plans, by generation. Safe from any thread.

    Parameters
    ----------
    repository
        Where references are read.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._plans: OrderedDict[int, dict[tuple[int, int], _Arm]] = OrderedDict()
        self._edges: OrderedDict[tuple[str, str, str, tuple[float, ...]], NDArray[np.float32]]
        self._edges = OrderedDict()

    def remember(self, generation: int, arms: Iterable[ServedArm]) -> None:
        """Take a plan that is in force. Quick: who changes what serves may call it."""
        # An arm's index counts within its model, as the engine has it.
        n_of_model: dict[str, int] = {}
        plan = {}
        for arm in arms:
            index = n_of_model.get(arm.model, 0)
            n_of_model[arm.model] = index + 1
            key = VersionKey(arm.model, arm.version, arm.sha256.hex(), arm.name)
            cuts = tuple(raw for _, raw, _ in arm.thresholds)
            plan[arm.loaded.slot, index] = _Arm(key, cuts)
        with self._lock:
            self._plans[generation] = plan
            while len(self._plans) > MAX_GENERATIONS:
                self._plans.popitem(last=False)

    def knows(self, generation: int) -> bool:
        """Return whether a plan is remembered."""
        with self._lock:
            return generation in self._plans

    def find(self, slot: int, arm: int, generation: int) -> Decider | None:
        """Return what decided; None where that is no longer known. It may read a bundle."""
        with self._lock:
            found = self._plans.get(generation, {}).get((slot, arm))
        return None if found is None else Decider(found.key, self._edges_of(found))

    def _edges_of(self, arm: _Arm) -> NDArray[np.float32]:
        of = (arm.key.model, arm.key.version, arm.key.sha256, arm.cuts)
        edges = self._edges.get(of)
        if edges is None:
            edges = score_edges(self._reference_scores(arm.key), arm.cuts)
            self._edges[of] = edges
            while len(self._edges) > MAX_EDGES:
                self._edges.popitem(last=False)
        return edges

    def _reference_scores(self, key: VersionKey) -> NDArray[np.float32]:
        try:
            bundle = self._repository.read(key.model, key.version)
            if bundle.sha256.hex() != key.sha256:
                raise BundleError("its bundle was replaced since it was loaded")
            return load_reference(bundle).values[-1]
        except (ScoregateError, FastpathError, OSError) as error:
            log.warning(
                "quality of %s %s is measured in even bins of the raw score: %s",
                key.model,
                key.version,
                error,
            )
            return EVEN
