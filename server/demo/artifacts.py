"""What the demo keeps between runs, and when it may be used again.

    var/demo/
      state.json         fingerprint and figures; written last
      model-<version>.joblib        the scikit-learn models
      test.npz           the test week, as the replay wants it
      states.npz         customers and terminals as that week begins
      repository/fraud/<version>/   the bundles
      repository/.scoregate/        the server's journal: a kept demo serves what it served last
      features/          the store, made anew by every run; redis.log
      decisions/         what was decided and what came of it, likewise
      server.log  replay.log  ready.json  lock

The fingerprint covers everything that the artifacts depend on: what was simulated or the file's
content, the versions of the libraries, and the code of the rooms that made them. Under another
fingerprint everything is made anew, and the journal goes too: it knows bundles that are gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import msgspec

from server.demo.sizes import Size
from server.errors import InputError
from server.rollout.opening import JOURNAL

MODEL = "fraud"
# The version that serves at first, and the one that waits to be deployed.
VERSION = "1.0"
NEXT_VERSION = "2.0"
VERSIONS = (VERSION, NEXT_VERSION)
LIBRARIES = ("numpy", "onnx", "pandas", "scikit-learn")
# Rooms whose code decides what the artifacts hold.
ROOMS = ("bundle", "demo", "drift", "export")


class State(msgspec.Struct, kw_only=True):
    """The content of state.json."""

    fingerprint: str
    origin: str
    groups: list[str]
    n_train: int
    n_test: int
    test_span_s: float  # event time from the first row to replay to the last
    test_quality: dict[str, float]


def fingerprint(data: Path | None, size: Size, seed: int) -> str:
    """Return SHA-256, in hex, over everything that the artifacts depend on.

    Raises
    ------
    InputError
        The data file cannot be read.
    """
    parts: list[object] = [platform.python_version(), seed]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    if data is None:
        parts.append(asdict(size))
    else:
        try:
            with data.open("rb") as file:
                parts.append([data.suffix, hashlib.file_digest(file, "sha256").hexdigest()])
        except OSError as error:
            raise InputError(f"{data}: cannot be read: {error.strerror}") from None
    root = Path(__file__).parents[1]
    for room in ROOMS:
        for source in sorted((root / room).glob("*.py")):
            parts.append([source.name, hashlib.sha256(source.read_bytes()).hexdigest()])
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class Artifacts:
    """The files of one demo directory.

    Parameters
    ----------
    directory : Path
        Made where it does not exist.

    Raises
    ------
    InputError
        It cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows = directory / "test.npz"
        self.states = directory / "states.npz"
        self.features = directory / "features"
        self.decisions = directory / "decisions"
        self.repository = directory / "repository"
        self._state = directory / "state.json"
        try:
            self.repository.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{directory}: cannot be made: {error.strerror}") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other demos out of the directory for a while; the kernel frees it at the end."""
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"{self.directory}: another demo runs there; give another --directory"
                ) from None
            yield

    def model_file(self, version: str) -> Path:
        """Return where a version's scikit-learn model is."""
        return self.directory / f"model-{version}.joblib"

    def bundle(self, version: str) -> Path:
        """Return where a version's bundle is."""
        return self.repository / MODEL / version

    def find(self, wanted: str) -> State | None:
        """Return the kept state, if it is whole and has this fingerprint."""
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return None
        files = self.rows.is_file() and self.states.is_file()
        whole = files and all(self.bundle(version).is_dir() for version in VERSIONS)
        return state if whole and state.fingerprint == wanted else None

    def clear(self) -> None:
        """Remove what an earlier run made, the state first: half of it is never taken for all."""
        self._state.unlink(missing_ok=True)
        self.rows.unlink(missing_ok=True)
        self.states.unlink(missing_ok=True)
        for version in VERSIONS:
            self.model_file(version).unlink(missing_ok=True)
        for folder in (MODEL, JOURNAL.parent):
            shutil.rmtree(self.repository / folder, ignore_errors=True)

    def forget_drift(self) -> None:
        """Remove what an earlier run's monitors saw: the replay goes back to where it began."""
        windows = self.repository / JOURNAL.parent / "drift"
        shutil.rmtree(windows, ignore_errors=True)

    def forget_decisions(self) -> None:
        """Remove what an earlier run decided: its request ids are used again."""
        shutil.rmtree(self.decisions, ignore_errors=True)

    def keep(self, state: State) -> None:
        """Write the state, aside and renamed."""
        aside = self._state.with_name(".state.json")
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        aside.rename(self._state)
