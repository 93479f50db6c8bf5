"""Models on disk and in memory: finds bundles, loads them, publishes serving plans.

Rules
-----
* `<repository>/<model>/<version>/` is a bundle. Names that start with a dot are not looked at.
  The newest version is the last in natural order ("v10" after "v9"); a suffix sorts after what it
  is a suffix of ("2.0-rc1" after "2.0"), so a candidate is served unless a version is named.
* A load is all or nothing: bundle verified, engine built and proven, plan compiled, and only then
  is one pointer published. Whatever fails before leaves what serves untouched.
* A plan's generation is the wall clock in milliseconds at the start of the process, then one
  more per change: it grows across restarts as long as the clock does not go back by more than the
  process lived, and a process makes fewer than a thousand changes a second.

What it does not do: split traffic. Every model has one arm, named "champion".
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastpath.metrics import Metrics
from fastpath.plan import Plan, PlanArm, PlanBoard, PlanModel
from fastpath.routing import BucketTable
from fastpath.store import BatchTable
from server.bundle import LoadedModel, load_model, read_bundle
from server.bundle.manifest import NAME_PATTERN
from server.errors import BundleError, StartError
from server.layouts import Layout, former_layouts
from server.memory import trim

ARM = "champion"
ALL_BASIS_POINTS = 10_000
# How long a load waits for the replaced plan's last answers before it leaves the rest of
# the clean-up to the next load.
RETIRE_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model that the published plan serves."""

    name: str
    version: str
    arm: str
    weight_basis_points: int
    loaded: LoadedModel
    table: BucketTable
    slot: int  # of the metrics
    former_layouts: tuple[Layout, ...] = ()  # of versions that do not serve

    @property
    def engine(self) -> str:
        """Which engine scores: "forest", "linear" or "onnx"."""
        return self.loaded.engine

    @property
    def sha256(self) -> bytes:
        """Digest of the bundle's manifest: 32 bytes."""
        return self.loaded.sha256

    @property
    def resident_bytes(self) -> int:
        """Memory that the engine holds."""
        return self.loaded.resident_bytes


# Encodes a GetModelResponse: (model, is it the default, generation).
Describe = Callable[[ServedModel, bool, int], bytes]


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key in which runs of digits compare as numbers; the text breaks ties."""
    parts = re.split(r"([0-9]+)", text)  # every second part is digits
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], text


class Registry:
    """The models that serve. Loading is thread-safe; loads happen one after the other.

    Parameters
    ----------
    repository
        Directory of bundles.
    board
        Where plans are published.
    metrics
        Where models get their counters.
    describe
        Encodes what GetModel answers; injected, because only the control plane knows protobuf.
    default_model
        Model of requests that name none; empty: the one model.
    n_threads
        Threads that will score at once.
    batch
        Returns the batch tables of stored features, by group, that a new plan shall read.
    """

    def __init__(
        self,
        repository: Path,
        board: PlanBoard,
        metrics: Metrics,
        describe: Describe,
        *,
        default_model: str = "",
        n_threads: int = 1,
        batch: Callable[[], Mapping[str, BatchTable]] = dict,
    ) -> None:
        self._repository = repository
        self._board = board
        self._metrics = metrics
        self._describe = describe
        self._default_model = default_model
        self._n_threads = n_threads
        self._batch = batch
        self._loading = threading.Lock()
        self._served: Mapping[str, ServedModel] = {}
        self._next_generation = time.time_ns() // 1_000_000

    @property
    def served(self) -> Sequence[ServedModel]:
        """What the published plan serves, by name."""
        return list(self._served.values())

    @property
    def generation(self) -> int:
        """Generation of the published plan; 0 while there is none."""
        plan = self._board.published
        return 0 if plan is None else plan.generation

    @property
    def default_model(self) -> str:
        """Name of the model of requests that name none; empty while nothing serves."""
        plan = self._board.published
        return "" if plan is None else plan.default_model

    def models(self) -> list[str]:
        """Return the names in the repository.

        Raises
        ------
        StartError
            The repository is missing or cannot be read.
        """
        return sorted(_directories(self._repository, "repository"))

    def versions(self, model: str) -> list[str]:
        """Return a model's versions, oldest first in natural order.

        Raises
        ------
        StartError
            The model is not in the repository, or its directory cannot be read.
        """
        return sorted(_directories(self._repository / model, "model"), key=natural_key)

    def load_all(self, wanted: Sequence[str] = ()) -> None:
        """Load and publish several models as one plan.

        Parameters
        ----------
        wanted
            "MODEL" or "MODEL@VERSION"; empty: the newest version of every model.

        Raises
        ------
        StartError, BundleError
            Nothing to serve, or something cannot be; what serves is untouched.
        """
        pairs = [name.partition("@")[::2] for name in (wanted or self.models())]
        names = [name for name, _ in pairs]
        if not pairs:
            raise StartError(
                f"{self._repository}: no models; `scoregate export` writes "
                "<repository>/<model>/<version>"
            )
        if len(set(names)) != len(names):
            raise StartError(f"models: {', '.join(names)}: one version of a model can serve")
        if len(pairs) > 1 and not self._default_model:
            raise StartError(
                f"default_model: say which of {', '.join(names)} answers requests that name none"
            )
        with self._loading:
            served = {name: self._load_one(name, version) for name, version in pairs}
            self._publish(served)

    def load(self, model: str, version: str = "") -> ServedModel:
        """Load one version of one model and serve it instead of what served before.

        Parameters
        ----------
        model
            Its name.
        version
            Empty: the newest.

        Raises
        ------
        StartError, BundleError
            It is not there, damaged, or cannot be served; what serves is untouched.
        """
        with self._loading:
            one = self._load_one(model, version)
            self._publish(dict(sorted({**self._served, model: one}.items())))
        return one

    def republish(self) -> None:
        """Publish a plan with the same models and the newest batch tables.

        Raises
        ------
        PlanError
            The tables do not fit; what serves is untouched.
        """
        with self._loading:
            if self._served:
                self._publish(self._served)

    def _load_one(self, model: str, version: str) -> ServedModel:
        for what, name in (("model", model), ("version", version or "1")):
            if not re.match(NAME_PATTERN, name):
                raise StartError(f"{name!r} is not a {what}'s name: it has to match {NAME_PATTERN}")
        versions = self.versions(model)
        if not versions or (version and version not in versions):
            wanted = f"no version {version}" if version else "no versions"
            known = f"; there is {', '.join(versions)}" if versions else ""
            raise StartError(f"{self._repository / model}: {wanted} of this model{known}")
        version = version or versions[-1]
        path = self._repository / model / version
        started_ns = time.monotonic_ns()
        bundle = read_bundle(path)
        manifest = bundle.manifest
        if (manifest.name, manifest.version) != (model, version):
            raise BundleError(
                f"{path}: the manifest says {manifest.name} {manifest.version}; rename the "
                "directories, or export again"
            )
        loaded = load_model(bundle, n_threads=self._n_threads)
        decisions = [manifest.default_decision, *(t.name for t in manifest.thresholds)]
        schema = loaded.schema
        groups = [group.name for group in schema.groups]
        slot = self._metrics.register(model, version, decisions, groups)
        before = self._served.get(model)
        table = (
            before.table if before else BucketTable.from_weights(model.encode(), [ALL_BASIS_POINTS])
        )
        took_ms = (time.monotonic_ns() - started_ns) / 1e6
        log.info("loaded %s %s (%s engine) in %.0f ms", model, version, loaded.engine, took_ms)
        former = former_layouts(path.parent, versions, schema)
        return ServedModel(model, version, ARM, ALL_BASIS_POINTS, loaded, table, slot, former)

    def _publish(self, served: Mapping[str, ServedModel]) -> None:
        default = self._default_model or self.default_model or next(iter(served))
        generation = self._next_generation
        models = [
            self._plan_model(one, self._describe(one, one.name == default, generation))
            for one in served.values()
        ]
        plan = Plan(generation, models, default, self._batch())
        self._next_generation = generation + 1
        self._board.publish(plan)
        self._served = served
        if not self._board.wait_retired(RETIRE_S):
            log.warning("calls of an earlier plan are still being answered")
        trim()

    @staticmethod
    def _plan_model(one: ServedModel, description: bytes) -> PlanModel:
        manifest = one.loaded.manifest
        outputs = manifest.outputs
        arm = PlanArm(
            name=one.arm,
            version=one.version,
            sha256=one.sha256,
            model=one.loaded.model,
            schema=one.loaded.schema,
            slot=one.slot,
            link=outputs.link,
            prior_shift=outputs.prior_log_odds_shift,
            score_kind=outputs.score_kind,
            thresholds=tuple((t.name, t.raw_score) for t in manifest.thresholds),
            default_decision=manifest.default_decision,
        )
        return PlanModel(
            name=one.name,
            arms=(arm,),
            table=one.table,
            routing_entity=manifest.routing_entity,
            description=description,
            former_layouts=one.former_layouts,
        )


def _directories(path: Path, what: str) -> list[str]:
    try:
        return [
            entry.name
            for entry in path.iterdir()
            if re.match(NAME_PATTERN, entry.name) and entry.is_dir()
        ]
    except FileNotFoundError:
        raise StartError(f"{what} {path}: no such directory") from None
    except OSError as error:
        raise StartError(f"{what} {path}: cannot be read: {error.strerror}") from None
