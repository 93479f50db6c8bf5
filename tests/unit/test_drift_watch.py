"""The background watch when something goes wrong: monitors, kept windows, references, disks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from fastpath.capture import Capture, CapturedRows
from fastpath.metrics import Metrics
from server.drift import DriftSettings, Monitor, load_reference
from server.errors import BundleError
from server.events.drift import DriftEvents
from server.events.log import EventLog
from server.monitoring import keeping
from server.monitoring import watch as module
from server.monitoring.watch import DriftWatch, Listener, Watched
from server.repository import Repository
from server.rollout.loaded import Key
from server.rollout.plans import ServedArm
from tests.support.drift import START_MS
from tests.support.serving import MODEL, example_repository

SETTINGS = DriftSettings(n_rows=1000, min_span_s=0, interval_s=0.001)
POISON = -666.0
ONE_BY_ONE = 500  # milliseconds between rows


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


class Rings:
    """Stands for the loops' rings: what was captured, and the rates that were asked for."""

    def __init__(self) -> None:
        self.rates: dict[int, float] = {}
        self._waiting: list[CapturedRows] = []
        self.n = 0

    def set_rate(self, slot: int, rate: float) -> None:
        self.rates[slot] = rate

    def drain(self) -> list[CapturedRows]:
        found, self._waiting = self._waiting, []
        return found

    def put(self, slot: int, n_rows: int, amount: float | None = None) -> None:
        """Capture rows like those that the example was validated on."""
        rows = example_repository().rows.to_numpy(np.float32)
        rows = rows[(self.n + np.arange(n_rows)) % len(rows)].copy()
        if amount is not None:
            rows[:, 0] = amount
        times = START_MS + ONE_BY_ONE * (self.n + np.arange(n_rows))
        self.n += n_rows
        none: Any = None
        self._waiting.append(
            CapturedRows(
                slot,
                rows,
                np.ones(rows.shape, np.uint8),
                rows[:, 0].copy(),
                times,
                *[none] * (len(CapturedRows._fields) - 5),
            )
        )


class World:
    """A watch over the example's versions, looked at by hand."""

    def __init__(self, directory: Path | None = None, listener: Listener | None = None) -> None:
        self.rings = Rings()
        self.metrics = Metrics(1)
        repository = Repository(example_repository().path)
        digests = {v: repository.digest(MODEL, v) for v in ("1", "2")}
        self.keys = {v: Key(MODEL, v, digest) for v, digest in digests.items()}
        self.slots = {v: self.metrics.register(MODEL, v, ["approve"]) for v in ("1", "2")}
        self.serving = ["1", "2"]
        self.directory = directory
        self.watch = DriftWatch(
            cast("Capture", self.rings),
            self.metrics,
            repository,
            self._arms,
            SETTINGS,
            rows_per_s=1000.0,
            drain_s=0.01,
            directory=directory,
            listener=listener,
        )

    def _arms(self) -> list[ServedArm]:
        return [
            cast(
                "ServedArm",
                SimpleNamespace(loaded=SimpleNamespace(key=self.keys[v], slot=self.slots[v])),
            )
            for v in self.serving
        ]

    def look(self, *versions: str, n_rows: int = 700, amount: float | None = None) -> None:
        """Capture rows of versions, and look."""
        for version in versions:
            self.rings.put(self.slots[version], n_rows, amount)
        self.watch.look()

    def watched(self, version: str) -> Watched:
        [found] = [one for one in self.watch.watched if one.key.version == version]
        return found

    def n_rows(self, version: str) -> int:
        """Rows of the slow window."""
        evaluation = self.watched(version).evaluation
        return 0 if evaluation is None else evaluation.slow.n_rows


class Fragile(Monitor):
    """A monitor that cannot bear certain rows; `fails_in` says where it gives way."""

    fails_in = "observe"
    is_ill_once_restored = False
    _is_ill = False

    def observe(self, rows: Any, raw: Any, sources: Any, time_ms: Any) -> None:
        is_poison = bool((rows[:, 0] == POISON).any())
        if is_poison and self.fails_in == "observe":
            raise RuntimeError("a row it cannot bear")
        super().observe(rows, raw, sources, time_ms)
        self._is_ill = self._is_ill or is_poison

    def evaluate(self, now_ms: int | None = None, *, force: bool = False) -> Any:
        if self._is_ill and self.fails_in == "evaluate":
            raise ZeroDivisionError("of a window that it cannot bear")
        return super().evaluate(now_ms, force=force)

    def to_bytes(self) -> bytes:
        if self._is_ill and self.fails_in == "to_bytes":
            raise OverflowError("of windows that it cannot keep")
        return super().to_bytes()

    def restore(self, data: bytes) -> None:
        super().restore(data)
        self._is_ill = self.is_ill_once_restored


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def give_way_in(where: str) -> None:
        monkeypatch.setattr(module, "Monitor", Fragile)
        monkeypatch.setattr(Fragile, "fails_in", where)

    return give_way_in


def test_every_version_is_watched_and_fed_its_own_rows() -> None:
    world = World()
    world.look()
    assert world.rings.rates.keys() == set(world.slots.values())
    world.look("1")
    world.look("2", n_rows=900)
    assert (world.n_rows("1"), world.n_rows("2")) == (700, 900)
    assert "warming" not in {one.monitor.state for one in world.watch.watched if one.monitor}


@pytest.mark.parametrize("where", ["observe", "evaluate"])
def test_a_monitor_that_raises_is_counted_and_made_anew(
    fragile: Callable[[str], None], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    fragile(where)
    world = World()
    world.look()
    world.look("1", "2")
    failed = world.watched("1").monitor
    world.rings.put(world.slots["1"], 10, POISON)
    world.look("2", n_rows=100)  # in the same look, behind it
    one, two = world.watched("1"), world.watched("2")
    assert (one.n_failed, two.n_failed) == (1, 0)
    assert one.monitor is not failed
    assert (world.n_rows("1"), world.n_rows("2")) == (0, 800)
    [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert f"{MODEL} 1" in record.message
    assert record.exc_info is not None
    world.look("1", n_rows=800)
    assert world.n_rows("1") == 800
    assert (one.n_failed, one.trouble) == (1, "")


class Deaf:
    """Whoever is told, and cannot bear it."""

    def evaluated(self, *_: object) -> None:
        raise RuntimeError("nobody listens")

    def failed(self, *_: object) -> None:
        raise RuntimeError("nobody listens")


def test_who_wants_to_know_is_told_and_cannot_do_harm(fragile: Callable[[str], None]) -> None:
    fragile("observe")
    events = EventLog()
    world = World(listener=DriftEvents(events))
    world.look()
    world.look("1", "2", amount=12345.0)
    world.look("2", n_rows=10, amount=POISON)
    told = {(kept.event.kind, kept.event.version) for kept in events.read(9)[0]}
    assert told == {("drift.broken", "1"), ("drift.broken", "2"), ("drift.failed", "2")}
    deaf = World(listener=Deaf())
    deaf.look()
    deaf.look("1", "2")
    deaf.look("2", n_rows=10, amount=POISON)
    assert [one.n_failed for one in deaf.watch.watched] == [0, 1]
    assert [one.n_ok > 0 for one in deaf.watch.watched] == [True, True]


def test_who_looks_while_a_monitor_is_made_anew_finds_the_one_before(
    fragile: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile("observe")
    world = World()
    world.look()
    world.look("1")
    before, seen = world.watched("1").monitor, []

    def load(bundle: Any) -> Any:
        seen.append((world.watched("1").monitor, world.watched("1").n_failed))
        return load_reference(bundle)

    monkeypatch.setattr(module, "load_reference", load)
    world.look("1", n_rows=1, amount=POISON)
    assert seen == [(before, 0)]  # whoever counts failures finds the new one once they are more
    assert world.watched("1").monitor not in (None, before)
    assert world.watched("1").n_failed == 1


class Seen(Watched):
    """Notes what of it could be captured when it came to be watched."""

    __slots__ = ()
    rings: ClassVar[Rings]
    rates: ClassVar[list[float]]

    def __setattr__(self, name: str, value: object) -> None:
        if name == "monitor" and value is not None:
            self.rates.append(self.rings.rates.get(self.slot, 0.0))
        super().__setattr__(name, value)


def test_what_is_said_to_be_watched_is_captured(
    fragile: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile("observe")
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module, "Watched", Seen)
    world = World()
    Seen.rings, Seen.rates = world.rings, []
    world.look()
    for _ in range(3):
        world.look("1", n_rows=1, amount=POISON)
        now[0] += 10  # after its rest
        world.look()
    assert world.watched("1").n_failed == 3
    # Two versions at the start; the first failure costs no rest, the others end one each.
    assert len(Seen.rates) == 5
    assert min(Seen.rates) > 0


def test_a_failure_costs_what_was_not_kept(fragile: Callable[[str], None], tmp_path: Path) -> None:
    fragile("observe")
    world = World(tmp_path)
    world.look()
    world.look("1")
    world.watch.keep()
    world.look("1", n_rows=50)
    world.look("1", n_rows=1, amount=POISON)
    world.look("1", n_rows=5)
    assert world.n_rows("1") == 705


def test_kept_windows_that_a_monitor_cannot_bear_are_left_alone(
    fragile: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fragile("evaluate")
    world = World(tmp_path)
    world.look()
    world.look("1")
    world.watch.keep()
    # Whole by its checksum, and yet no monitor can evaluate it: it would only follow itself.
    monkeypatch.setattr(Fragile, "is_ill_once_restored", True)
    again = World(tmp_path)
    again.look()
    for _ in range(3):
        again.look("1", n_rows=300)
    assert again.watched("1").n_failed == 1
    assert again.watched("1").n_ok > 0
    assert again.n_rows("1") == 600


def test_a_monitor_whose_windows_cannot_be_kept_is_made_anew(
    fragile: Callable[[str], None], tmp_path: Path
) -> None:
    fragile("to_bytes")
    world = World(tmp_path)
    world.look()
    world.look("1", "2", amount=POISON)
    world.watch.keep()
    assert [one.n_failed for one in world.watch.watched] == [1, 1]
    world.look("1", "2")
    world.watch.keep()
    assert [one.n_failed for one in world.watch.watched] == [1, 1]
    assert len(list(tmp_path.rglob("*.drift"))) == 2


@pytest.mark.parametrize("error", [BundleError("of another schema"), ValueError("of NaN")])
def test_a_version_that_cannot_be_watched_says_why_once_and_the_others_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:

    def load(bundle: Any) -> Any:
        if bundle.manifest.version == "1":
            raise error
        return load_reference(bundle)

    monkeypatch.setattr(module, "load_reference", load)
    world = World()
    world.look()
    for _ in range(3):
        world.look("1", "2")
    assert not world.watched("1").monitor
    assert str(error) in world.watched("1").trouble
    assert world.n_rows("2") == 2100
    assert world.rings.rates[world.slots["1"]] == 0.0
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 1
    assert f"{MODEL} 1 is not watched" in told[0].getMessage()


def test_a_version_that_leaves_and_comes_back_is_taken_up_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look()
    world.look("1")
    world.serving = ["2"]
    # What was captured between the last look and its leaving is its own, too.
    world.look("1", n_rows=40)
    assert world.rings.rates[world.slots["1"]] == 0.0
    assert [one.key.version for one in world.watch.watched] == ["2"]
    world.look("2")
    world.serving = ["2", "1"]
    world.look()
    world.look("1", n_rows=5)
    assert world.n_rows("1") == 745
    assert world.n_rows("2") == 700


def test_what_is_captured_while_it_looks_is_not_lost_when_a_version_leaves_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.look()
    real = world.rings.drain

    def drain() -> list[CapturedRows]:
        found = real()
        monkeypatch.setattr(world.rings, "drain", real)
        # Behind the drain's back: the last calls of a version, and then the plan without it.
        world.rings.put(world.slots["1"], 40)
        world.serving = ["2"]
        return found

    world.rings.put(world.slots["1"], 700)
    monkeypatch.setattr(world.rings, "drain", drain)
    world.watch.look()
    world.watch.look()
    assert [one.key.version for one in world.watch.watched] == ["2"]
    world.serving = ["2", "1"]
    world.look()
    world.look("1", n_rows=5)
    assert world.n_rows("1") == 745


def test_a_version_of_other_content_begins_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look()
    world.look("1")
    world.serving = ["2"]
    world.look()
    world.keys["1"] = Key(MODEL, "1", "f" * 64)
    world.serving = ["1", "2"]
    world.look()
    assert world.watched("1").monitor is None
    assert "was replaced" in world.watched("1").trouble


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_damaged_windows_are_told_and_replaced(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.look()
    world.look("1")
    world.watch.keep()
    [path] = tmp_path.rglob("1-*.drift")
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    again = World(tmp_path)
    with caplog.at_level(logging.INFO, module.__name__):
        again.look()
    assert f"{MODEL} 1 begins anew" in caplog.text
    again.look("1", n_rows=10)
    assert again.n_rows("1") == 10
    again.watch.keep()
    third = World(tmp_path)
    third.look()
    third.look("1", n_rows=1)
    assert third.n_rows("1") == 11


def test_windows_that_cannot_be_read_are_not_taken_up(tmp_path: Path) -> None:
    # A name that no file can have: an error other than "not there", for root as well.
    world = World(tmp_path / ("x" * 300))
    world.look()
    world.look("1", n_rows=10)
    assert world.n_rows("1") == 10


def test_a_monitor_that_fails_every_time_rests_ever_longer(
    fragile: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile("observe")
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    world = World()
    world.look()
    failed_at = []
    for _ in range(4000):
        before = world.watched("1").n_failed
        world.look("1", n_rows=1, amount=POISON)
        if world.watched("1").n_failed > before:
            failed_at.append(now[0])
        now[0] += 0.5
    rests = np.diff(failed_at)[:14]
    # Looked at every half second.
    wanted = [0.0, *(2.0**i for i in range(9)), *[300.0] * 4]
    np.testing.assert_allclose(rests, np.add(wanted, 0.5), atol=0.5)
    watched = world.watched("1")
    assert not watched.monitor
    assert "RuntimeError: a row it cannot bear" in watched.trouble
    assert world.rings.rates[watched.slot] == 0.0
    # The cause is gone: after its rest it watches as if nothing had been.
    now[0] += 300
    world.look()
    world.look("1")
    assert watched.monitor is not None
    assert (watched.trouble, watched.n_failed_in_a_row) == ("", 0)
    assert world.n_rows("1") == 700
    assert world.rings.rates[watched.slot] > 0


def test_a_disk_that_takes_nothing_is_told_once_and_watching_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    world = World(tmp_path)
    world.look()
    monkeypatch.setattr(keeping, "write_whole", refuse)
    monkeypatch.setattr(module, "KEEP_S", 0.0)
    for _ in range(5):
        world.look("1", "2", n_rows=100)
    assert (world.n_rows("1"), world.n_rows("2")) == (500, 500)
    [warning] = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "No space left on device" in warning.getMessage()
    assert [one.n_failed for one in world.watch.watched] == [0, 0]
    # There is room again, and then there is none again: that is news.
    monkeypatch.undo()
    monkeypatch.setattr(module, "KEEP_S", 0.0)
    world.look("1")
    assert len(list(tmp_path.rglob("*.drift"))) == 2
    monkeypatch.setattr(keeping, "write_whole", refuse)
    world.look("1")
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 2


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look()
    world.look("1", n_rows=10)
    world.watch.keep()
    [kept] = tmp_path.rglob("1-*.drift")
    (kept.parent / f".{kept.name}.x7y8z9").write_bytes(b"half")
    again = World(tmp_path)
    again.watch.start()
    again.watch.stop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_a_look_that_raises_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    real, failures = world.rings.drain, iter([True, True])

    def drain() -> list[CapturedRows]:
        if next(failures, False):
            raise MemoryError
        return real()

    monkeypatch.setattr(world.rings, "drain", drain)
    world.watch.start()
    try:
        until(lambda: len(world.watch.watched) == 2)
        world.rings.put(world.slots["1"], 700)
        until(lambda: world.n_rows("1") > 0)
    finally:
        world.watch.stop()
    assert world.n_rows("1") == 700
    assert caplog.text.count("drift could not be looked at") == 2


def test_windows_that_nobody_can_use_any_more_are_removed(tmp_path: Path) -> None:
    kept = keeping.KeptWindows(tmp_path)
    old, new = Key(MODEL, "1", "ab" * 32), Key(MODEL, "2", "cd" * 32)
    for key in (old, new):
        kept.write(key, b"windows")
    [path] = tmp_path.glob("*/1-*.drift")
    os.utime(path, (time.time() - 200, time.time() - 200))
    kept.sweep(older_than_s=100)
    assert (kept.read(old), kept.read(new)) == (None, b"windows")
