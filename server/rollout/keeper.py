"""What keeps an eye on versions: new ones in the repository, and memory of old ones.

A thread that looks now and then. With a policy ("latest:2", "all") it loads versions that could
be deployed next, so that deploying them takes no time; it never gives them traffic. Versions that
cannot be loaded are reported once. And it lets models go that only former plans needed, when their
time is over.
"""

from __future__ import annotations

import logging
import threading

from server.errors import ScoregateError
from server.rollout.loaded import Key
from server.rollout.rollout import Rollout

log = logging.getLogger(__name__)

# How often former plans are looked at, where versions are not polled.
RETENTION_S = 5.0


class Keeper:
    """The thread.

    Parameters
    ----------
    rollout
        Whose models it looks after.
    policy
        Which versions of the models in force are kept loaded: "serving" (no other), "latest:N" or
        "all".
    poll_s
        Seconds between two looks for new versions; 0: never.
    """

    def __init__(self, rollout: Rollout, policy: str, poll_s: float) -> None:
        self._rollout = rollout
        self._policy = policy
        self._poll_s = poll_s
        self._known: set[tuple[str, str]] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scoregate-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the load that it may be in."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look once: load what the policy asks for, drop what nobody needs."""
        wanted: set[Key] = set()
        found: set[tuple[str, str]] = set()
        served = self._rollout.served
        for model in [] if served is None else served.models:
            try:
                versions = self._rollout.repository.versions(model.name)
            except ScoregateError as error:
                log.warning("%s", error)
                continue
            found |= {(model.name, version) for version in versions}
            for version in self._chosen(versions):
                key = self._load(model.name, version)
                if key is not None:
                    wanted.add(key)
        for model_name, version in sorted(found - (found if self._known is None else self._known)):
            log.info("new version: %s %s", model_name, version)
        self._known = found
        self._rollout.keep(wanted)

    def _chosen(self, versions: list[str]) -> list[str]:
        if self._policy == "all":
            return versions
        n_latest = int(self._policy.partition(":")[2] or 0)
        return versions[-n_latest:] if n_latest else []

    def _load(self, model: str, version: str) -> Key | None:
        is_new = self._known is None or (model, version) not in self._known
        try:
            return self._rollout.models.get(model, version).key
        except ScoregateError as error:
            if is_new:
                log.warning("version %s of %s cannot be kept loaded: %s", version, model, error)
            return None

    def _run(self) -> None:
        looks = self._poll_s > 0 or self._policy != "serving"
        if looks:
            self._look_safely()
        while not self._stopping.wait(self._poll_s or RETENTION_S):
            if self._poll_s > 0:
                self._look_safely()
            elif self._policy == "serving":
                self._rollout.keep(set())

    def _look_safely(self) -> None:
        try:
            self.look()
        except Exception:
            # The next look may succeed; what serves, serves.
            log.exception("versions could not be looked after")
