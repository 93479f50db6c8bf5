"""Events without sockets: what is limited, kept, counted and written, and what never happens."""

from __future__ import annotations

import itertools
import json
import logging
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from server.config import EventSettings, RolloutSettings, Settings
from server.control.describe import describe_model
from server.control.events import read_events
from server.drift import Evaluation, WindowReport
from server.errors import InputError, StartError
from server.events.drift import DriftEvents
from server.events.event import Event, make_event
from server.events.kinds import KINDS
from server.events.limiter import INTERVAL_S, Limiter
from server.events.line_file import LineFile
from server.events.log import N_KEPT, N_UNWRITTEN, EventLog
from server.events.metrics import event_families
from server.events.opening import open_events
from server.events.post import parse_target
from server.events.rollout import RolloutEvents
from server.events.signature import read_secret, sign
from server.events.webhook import LONGEST_RETRY_AFTER_S, retry_after_s
from server.lifecycle import Lifecycle, State
from server.logs import JsonFormatter
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.change import Author
from server.rollout.opening import open_rollout
from server.rollout.verbs import Verbs
from tests.support.control import wait_for
from tests.support.serving import MODEL, ROOT, example_repository

ANN = Author("ann", is_verified=True, why="because")


def an_event(kind: str, at_s: float = 0.0, model: str = "m", version: str = "1") -> Event:
    return make_event(
        kind, kind, time_ms=round(at_s * 1000), model=model, version=version, details={}
    )


def kinds_of(events: EventLog) -> list[str]:
    """Return the kinds that were told, oldest first."""
    return [kept.event.kind for kept in reversed(events.read(N_KEPT)[0])]


# ---------------------------------------------------------------------- limiter


def test_the_first_of_a_kind_passes_and_the_next_waits_for_its_minute() -> None:
    limiter = Limiter()
    assert limiter.offer(an_event("drift.broken"), 0.0) is not None
    assert limiter.offer(an_event("drift.broken", version="2"), 1.0) is not None
    assert limiter.offer(an_event("drift.broken", 2.0), 2.0) is None
    assert limiter.wait_s(2.0) == INTERVAL_S - 2.0
    assert limiter.due(INTERVAL_S - 0.1) == []
    [late] = limiter.due(INTERVAL_S)
    assert (late.time_ms, late.details) == (2000, {})
    assert limiter.wait_s(INTERVAL_S) is None


def test_what_is_replaced_is_counted_into_the_next_of_its_kind() -> None:
    limiter = Limiter()
    limiter.offer(an_event("drift.warning"), 0.0)
    for second in range(1, 5):
        assert limiter.offer(an_event("drift.warning", second), float(second)) is None
    # Another state takes the place of the one that is held: it no longer holds.
    passed = limiter.offer(an_event("drift.recovered", 5.0), 5.0)
    assert passed is not None
    assert passed.details == {}
    assert limiter.due(1000.0) == []
    last = limiter.offer(an_event("drift.warning", 1000.0), 1000.0)
    assert last is not None
    assert last.details == {"n_suppressed": 4}


def test_deeds_all_pass_and_a_failing_monitor_hides_no_drift() -> None:
    limiter = Limiter()
    assert all(limiter.offer(an_event("rollout.rollback"), 0.0) for _ in range(100))
    limiter.offer(an_event("drift.broken"), 0.0)
    assert limiter.offer(an_event("drift.broken", 1.0), 1.0) is None
    assert limiter.offer(an_event("drift.failed", 2.0), 2.0) is not None
    assert [event.kind for event in limiter.rest(3.0)] == ["drift.broken"]


STATES = st.sampled_from(["drift.warning", "drift.retrain", "drift.broken", "drift.recovered"])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(STATES, st.floats(0.1, 100.0)), min_size=1, max_size=40))
def test_laws_of_the_limiter(steps: list[tuple[str, float]]) -> None:
    """Never two of a kind within a minute; all are told or counted; the last told is what holds."""
    limiter, now_s = Limiter(), 0.0
    told: list[tuple[float, Event]] = []
    for kind, pause_s in steps:
        now_s += pause_s
        while (wait_s := limiter.wait_s(now_s - pause_s)) is not None and wait_s <= pause_s:
            due_s = now_s - pause_s + wait_s
            told += [(due_s, event) for event in limiter.due(due_s + 1e-6)]
        passed = limiter.offer(an_event(kind, now_s), now_s)
        told += [(now_s, passed)] if passed else []
    told += [(now_s + INTERVAL_S, event) for event in limiter.due(now_s + INTERVAL_S)]
    assert [event.time_ms for _, event in told] == sorted(event.time_ms for _, event in told)
    assert told[-1][1].kind == steps[-1][0]
    for kind in {kind for kind, _ in steps}:
        times = [time_s for time_s, event in told if event.kind == kind]
        assert all(b - a >= INTERVAL_S - 1e-3 for a, b in itertools.pairwise(times))
        # Once more, much later: whatever is missing was counted.
        last = limiter.offer(an_event(kind, 1e6), 1e6 + list(KINDS).index(kind))
        counted = [event for _, event in told if event.kind == kind] + ([last] if last else [])
        n_told = sum(1 + event.details.get("n_suppressed", 0) for event in counted)
        assert n_told == sum(kind == other for other, _ in steps) + 1


# ---------------------------------------------------------------------- the log


def test_newest_first_or_what_came_after() -> None:
    events = EventLog()
    for number in range(N_KEPT + 5):
        events.emit("rollout.change", f"change {number}", model="a" if number % 2 else "b")
    events.emit("rollout.rollback", "back")
    newest, last_id = events.read(3)
    assert [kept.event.summary for kept in newest] == ["back", "change 1004", "change 1003"]
    assert newest[0].event.id == last_id
    assert len(events.read(10_000)[0]) == N_KEPT
    after, _ = events.read(2, after_id=last_id - 4)
    assert [kept.event.summary for kept in after] == ["change 1002", "change 1003"]
    assert events.read(5, after_id=last_id) == ([], last_id)
    [only], _ = events.read(5, kinds={"rollout.rollback"})
    assert (only.event.summary, only.delivery) == ("back", "none")


def test_numbers_rise_over_processes() -> None:
    first, second = EventLog(), EventLog()
    first.emit("rollout.change", "a")
    second.emit("rollout.change", "b")
    assert 0 < first.read(1)[1] < second.read(1)[1] < 2**53  # what JavaScript counts exactly


def test_emit_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    events = EventLog()
    events.emit("rollout.change", "numpy", details={"n": np.int64(1)})
    events.emit("no.such.kind", "?")
    assert events.read(10) == ([], 0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_summary_is_one_line() -> None:
    events = EventLog()
    events.emit("rollout.change", "a\nb " + "c" * 1000)
    [kept], _ = events.read(1)
    assert kept.event.summary.startswith("a b ccc")
    assert len(kept.event.summary) == 300


def test_many_threads_emit() -> None:
    events = EventLog()

    def emit() -> None:
        for number in range(100):
            events.emit("rollout.change", str(number))

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [kept.event.id for kept in events.read(N_KEPT)[0]]
    assert len(set(ids)) == 800
    assert ids == sorted(ids, reverse=True)
    assert events.counts()["rollout.change", "emitted"] == 800


def test_every_series_is_there_from_the_start() -> None:
    families = {family.name: family for family in event_families(EventLog())}
    samples = families["scoregate_events"].samples
    assert {(s.labels["kind"], s.labels["result"]) for s in samples} == {
        (kind, result) for kind in KINDS for result in ("emitted", "delivered", "failed", "dropped")
    }
    assert {s.value for s in samples} == {0}
    assert families["scoregate_events_waiting"].samples[0].value == 0


class Stuck:
    """A webhook whose receiver takes nothing, with room for two."""

    def __init__(self) -> None:
        self.waiting: list[Event] = []

    @property
    def n_waiting(self) -> int:
        return len(self.waiting)

    def start(self) -> None:
        pass

    def offer(self, event: Event) -> Event | None:
        self.waiting.append(event)
        return self.waiting.pop(0) if len(self.waiting) > 2 else None

    def stop(self, grace_s: float) -> list[Event]:
        return self.waiting


def test_what_becomes_of_an_event_is_shown_and_counted() -> None:
    events, webhook = EventLog(), Stuck()
    events.post_to(webhook)  # type: ignore[arg-type]
    for number in range(4):
        events.emit("rollout.change", str(number))
    events.settle(webhook.waiting.pop(0), "delivered")
    shown = [kept.delivery for kept in reversed(events.read(9)[0])]
    assert shown == ["dropped", "dropped", "delivered", "waiting"]
    assert events.n_waiting == 1
    events.stop()
    counts = events.counts()
    assert counts["rollout.change", "dropped"] == 3
    assert counts["rollout.change", "delivered"] == 1


# --------------------------------------------------------------------- the file


@pytest.fixture
def written(tmp_path: Path) -> Iterator[tuple[EventLog, Path]]:
    path = tmp_path / "events.jsonl"
    events = EventLog("host:1", LineFile(path))
    events.start()
    yield events, path
    events.stop()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_lines_of_the_file_are_what_is_posted(written: tuple[EventLog, Path]) -> None:
    events, path = written
    events.emit("drift.broken", "s", model="fraud", version="2", details={"score": None})
    [line] = wait_for(lambda: lines_of(path))
    [kept], _ = events.read(1)
    assert list(line) == [
        "id", "time", "kind", "severity", "model", "version", "summary", "details", "source",
    ]  # fmt: skip
    assert line["id"] == kept.event.id
    assert line["time"].endswith("Z")
    assert (line["severity"], line["source"]) == ("critical", "host:1")
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_that_is_rotated_away_begins_anew(written: tuple[EventLog, Path]) -> None:
    events, path = written
    events.emit("rollout.change", "one")
    wait_for(lambda: lines_of(path))
    path.rename(path.with_suffix(".1"))
    events.emit("rollout.change", "two")
    assert [line["summary"] for line in wait_for(lambda: lines_of(path))] == ["two"]
    assert [line["summary"] for line in lines_of(path.with_suffix(".1"))] == ["one"]


def test_what_is_held_back_is_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventLog("host:1", LineFile(path))
    events.start()
    events.emit("drift.warning", "one")
    events.emit("drift.warning", "two")
    events.emit("drift.warning", "three")
    events.stop()
    assert [line["summary"] for line in lines_of(path)] == ["one", "three"]


def test_what_is_held_back_is_told_in_its_time() -> None:
    events = EventLog(limiter=Limiter(0.2))
    events.start()
    events.emit("drift.warning", "one")
    events.emit("drift.warning", "two")
    wait_for(lambda: kinds_of(events) == ["drift.warning"] * 2)
    events.stop()


@pytest.fixture
def small_disk() -> Iterator[int]:
    """Files may not grow over this size: the kernel then writes a part, as a full disk does."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_line_is_whole_or_not_there(tmp_path: Path, small_disk: int) -> None:
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append(b"a" * 899)
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space left|File too large"):
            file.append(b"b" * 500)
    file.append(b"c" * 49)
    assert path.read_bytes() == b"a" * 899 + b"\n" + b"c" * 49 + b"\n"
    file.close()


def test_a_full_disk_is_counted_and_said_once(
    tmp_path: Path, small_disk: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    events = EventLog("host:1", LineFile(path))
    for number in range(10):
        events.emit("rollout.change", f"{number} " + "x" * 250)
    events.start()
    events.stop()
    n_lines = len(lines_of(path))
    assert 0 < n_lines < 10
    assert events.n_lines_lost == 10 - n_lines
    said = [record for record in caplog.records if "log_file" in record.getMessage()]
    assert len(said) == 1
    assert len(kinds_of(events)) == 10


class StuckFile:
    """A file on a disk that does not answer."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def append(self, line: bytes) -> None:
        self.answers.wait()

    def close(self) -> None:
        pass


def test_a_disk_that_hangs_holds_nobody_up_and_memory_is_bounded() -> None:
    file = StuckFile()
    events = EventLog(file=file)  # type: ignore[arg-type]
    events.start()
    events.emit("rollout.change", "the file takes it, and does not come back")
    wait_for(lambda: not events._unwritten)
    for number in range(N_UNWRITTEN + 7):
        events.emit("rollout.change", str(number))
    assert events.n_lines_lost == 7
    assert len(events._unwritten) == N_UNWRITTEN
    assert events.counts()["rollout.change", "emitted"] == N_UNWRITTEN + 8
    file.answers.set()
    events.stop(30.0)


def test_a_file_that_ends_in_mid_line_goes_on_with_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"half')
    file = LineFile(path)
    file.append(b"whole")
    file.append(b"next")
    file.close()
    assert path.read_bytes() == b'{"half\nwhole\nnext\n'


def test_the_json_log_gives_the_fields() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "event %s", ("x",), None)
    record.fields = {"event": {"kind": "x"}}
    assert json.loads(JsonFormatter().format(record))["event"] == {"kind": "x"}


# ------------------------------------------------------------------ where from


def evaluation(state: Any, score: float = 0.4) -> Evaluation:
    return Evaluation(
        time_ms=1, state=state, score=score, mean=0.1, drifted_share=0.2,
        raw_score_drift=float("nan"), features=(), raw_score=None,
        fast=WindowReport(n_rows=700, span_s=61.0), slow=WindowReport(), reasons=("amount: D 0.4",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["warming", "stable", "stable"], []),
        (["warming", "warning", "warning", "retrain"], ["warning", "retrain"]),
        (["retrain", "warning", "stable"], ["retrain", "warning", "recovered"]),
        (["broken", "warming", "stable"], ["broken", "recovered"]),
        (["broken", "warming", "broken"], ["broken"]),
        (["stable", "warming", "stable"], []),
    ],
)
def test_one_event_for_each_change_of_drift(states: list[str], told: list[str]) -> None:
    events = EventLog(limiter=Limiter(0.0))
    drift = DriftEvents(events)
    for state in states:
        drift.evaluated("fraud", "2", evaluation(state))
    assert kinds_of(events) == [f"drift.{state}" for state in told]


def test_an_event_of_drift_says_what_was_found() -> None:
    events = EventLog()
    drift = DriftEvents(events)
    drift.evaluated("fraud", "2", evaluation("retrain"))
    drift.failed("fraud", "2", KeyError("customer 17"))
    failed, retrain = (kept.event for kept in events.read(2)[0])
    assert retrain.summary == "fraud 2: it is asked something else than it learned: amount: D 0.4"
    assert retrain.details["raw_score_drift"] is None
    assert (retrain.details["score"], retrain.details["n_rows"]) == (0.4, 700)
    assert failed.kind == "drift.failed"
    assert "customer 17" not in failed.summary + str(failed.details)


def test_events_of_a_rollout(tmp_path: Path) -> None:
    given = Settings(
        repository=str(example_repository().path),
        rollout=RolloutSettings(journal=str(tmp_path / "journal.db")),
    )
    rollout = open_rollout(given, PlanBoard(), Metrics(1), describe_model)
    events = EventLog()
    rollout.start([f"{MODEL}@1"])
    # After the start: the state before the first change is the journal's.
    rollout.listen(RolloutEvents(events, rollout.journal).take)
    verbs = Verbs(rollout)
    verbs.deploy(ANN, "", "2", 1000)
    verbs.set_overrides(ANN, "", {"customer-17": "canary"})
    verbs.rollback(ANN)
    verbs.freeze(ANN, frozen=True)
    freeze, rollback, overrides, deploy = (kept.event for kept in events.read(9)[0])
    rollout.close()
    assert (deploy.kind, deploy.model, deploy.version) == ("rollout.change", MODEL, "2")
    assert deploy.summary.endswith("deploy by ann (because): fraud 1 90 %, 2 10 %")
    assert (overrides.model, overrides.version) == (MODEL, "")
    assert (rollback.kind, rollback.severity) == ("rollout.rollback", "warning")
    assert rollback.details["who"] == "ann"
    assert (freeze.model, freeze.details["models"]) == ("", [])
    everything = [event.document("") for event in (freeze, rollback, overrides, deploy)]
    assert "customer-17" not in json.dumps(everything)


def test_a_server_that_cannot_serve_says_so() -> None:
    lifecycle = Lifecycle()
    events = open_events(Settings(repository="r"), lifecycle)
    lifecycle.move(State.NOT_READY, "no plan of the journal can be served")
    lifecycle.move(State.SERVING)
    lifecycle.move(State.DRAINING)
    [kept], _ = events.read(9)
    assert kept.event.kind == "server.not_ready"
    assert kept.event.summary.endswith("no plan of the journal can be served")


# ------------------------------------------------------------------- GetEvents


def test_get_events_as_messages() -> None:
    events = EventLog()
    events.emit("drift.broken", "s", model="fraud", version="2", details={"score": 0.5})
    events.emit("rollout.change", "t")
    found = read_events(events, pb.GetEventsRequest(kinds=["drift.broken"]))
    [event] = found.events
    assert (event.kind, event.severity, event.delivery) == ("drift.broken", "critical", "none")
    assert json.loads(event.details) == {"score": 0.5}
    assert found.last_id == event.id + 1
    with pytest.raises(InputError, match=r"kinds: no drift\.brokn; there is drift\.warning, "):
        read_events(events, pb.GetEventsRequest(kinds=["drift.brokn"]))
    with pytest.raises(InputError, match="limit: up to 1000"):
        read_events(events, pb.GetEventsRequest(limit=1001))


# ------------------------------------------------- signature, secret, addresses


def test_the_verification_in_the_docs_verifies() -> None:
    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    [code] = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    found: dict[str, Any] = {}
    exec(code, found)
    verify, clock = found["verify"], found["time"]
    body, now_s = b'{"id":1}', int(clock.time())
    header = sign(b"secret", body, now_s)
    assert header.startswith(f"t={now_s},v1=")
    verify(b"secret", header, body)
    verify(b"secret", sign(b"secret", body, now_s - 250), body)
    for secret, signed_s, got in (
        (b"another", now_s, body),
        (b"secret", now_s - 400, body),
        (b"secret", now_s + 400, body),
        (b"secret", now_s, b'{"id":2}'),
    ):
        with pytest.raises(ValueError, match="signed"):
            verify(b"secret", sign(secret, body, signed_s), got)
    moved = header.replace(f"t={now_s}", f"t={now_s + 1}")
    with pytest.raises(ValueError, match="not signed with our secret"):
        verify(b"secret", moved, body)


def test_a_secret_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    path.write_text(" s3cret\n")
    path.chmod(0o600)
    assert read_secret(path) == b"s3cret"
    assert not caplog.records
    path.chmod(0o644)
    read_secret(path)
    assert "chmod 600" in caplog.text
    path.write_text("\n")
    with pytest.raises(StartError, match="is empty; `openssl rand"):
        read_secret(path)
    with pytest.raises(StartError, match="cannot be read: No such file"):
        read_secret(tmp_path / "none")


def test_a_log_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "events", tmp_path, Path("/dev/null")):
        given = Settings(repository="r", events=EventSettings(log_file=str(path)))
        with pytest.raises(StartError, match=r"events\.log_file: .* cannot be opened"):
            open_events(given, Lifecycle())


def test_addresses_of_webhooks() -> None:
    target = parse_target("https://[::1]/a/b?token=x")
    assert target == ("https", "::1", 443, "/a/b?token=x")
    assert target.public == "https://[::1]:443/…"
    assert parse_target("http://localhost:8080") == ("http", "localhost", 8080, "/")
    for url in (
        "https://",
        "https://a:b/",
        "ftp://a/",
        "https://u:p@a/",
        "http://a/ä",
        "http://[/",
    ):
        with pytest.raises(StartError, match=r"events\.webhook_url") as caught:
            parse_target(url)
        assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0), ("7", 7), ("-1", 0), ("nan", 0), ("soon", 0), ("²", 0),
        ("9" * 500, LONGEST_RETRY_AFTER_S),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2115 07:28:00 GMT", LONGEST_RETRY_AFTER_S),
    ],
)  # fmt: skip
def test_retry_after(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds
