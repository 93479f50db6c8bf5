"""The console's page and data: whole, small, escaped; a part that fails leaves the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from server.console import changes, drift, events, quality, stores, traffic, view
from server.console.fitting import fit
from server.console.headers import HEADERS, is_loopback, is_ours
from server.console.page import asset, make_page
from server.console.parts.tables import Column, Row, table
from server.console.tree import Element, element, to_html
from server.console.words import MAX_TEXT
from server.lifecycle import State
from server.pb.scoregate.v1 import control_pb2 as pb
from tests.support.console import HOSTILE, ConsoleWorld, monitor_of, quality_report, watch_of
from tests.support.html import Page, parse
from tests.support.serving import MODEL, copy_repository

THIRTY = [f"customer_amount_{i}d_mean" for i in range(30)]
WHOLE = HOSTILE.replace("\ud800", "")  # UTF-8 has no half of a pair
MARKUP = HOSTILE[: HOSTILE.index("\x00")]  # more no caller of the control port gets through
MAX_PAGE_BYTES = 120_000
OWN = {
    "link",
    "link href=/console/style.css",
    "script",
    "script src=/console/script.js",
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleWorld]:
    """Two arms of 30 features each, one of which drifted; and quality of both."""
    monitors = {"1": monitor_of(THIRTY), "2": monitor_of(THIRTY, shift=2.0)}
    repository = copy_repository(tmp_path_factory.mktemp("console") / "r")
    reports = [
        quality_report(version=version, arm=arm, cohort=cohort)
        for version, arm in (("2", "champion"), ("1", "canary"))
        for cohort in quality.ORDER
    ]
    with ConsoleWorld(repository, monitors, reports) as world:
        world.control.Deploy(
            pb.DeployRequest(
                version="1",
                traffic_basis_points=1000,
                options=pb.ChangeOptions(who="ann", why="a first look"),
            )
        )
        world.page()
        world.world.score(50, "card-1")
        yield world


def fetched(page: Page) -> set[str]:
    return {one for one in page.fetched if not one.startswith("link href=data:image/svg+xml,")}


def test_the_page_shows_everything_without_a_script(usual: ConsoleWorld) -> None:
    text = usual.page()
    page = parse(text)
    assert fetched(page) == OWN
    assert page.texts("h2") == list(view.HEADINGS.values())
    assert page.texts("strong")[0] == "Serving"
    assert any("reload it" in one for one in page.texts("p"))
    heads = page.texts("h3")
    assert heads[0].startswith(MODEL)
    assert "Worst: customer_amount_0d_mean" in page.texts("h4")[0]
    rows = page.texts("th")
    assert sum(name in rows for name in THIRTY) == 30
    assert "champion" in rows
    assert "canary" in rows
    cells = page.texts("td")
    assert "90 %" in cells
    assert "0.770 – 0.840" in cells
    assert "a first look" in cells
    assert "ann *" in cells
    titles = page.texts("title")
    assert f"Split of {MODEL}: champion 90 %, canary 10 %" in titles
    assert any(title.startswith("customer_amount_0d_mean, before and now:") for title in titles)
    assert len(page.ids) == len(set(page.ids))


def test_tables_can_be_heard(usual: ConsoleWorld) -> None:
    text = usual.page()
    tables = re.findall(r"<table.*?</table>", text)
    assert len(tables) >= 8
    for one in tables:
        assert one.count("<caption>") == 1
        assert 'scope="col"' in one
        assert one.count('scope="row"') == one.count('<tr role="row"') - 1 or "data-key" in one
    drawings = re.findall(r"<svg[^>]*>(?:<title>)?", text)
    assert all(one.endswith("<title>") or 'aria-hidden="true"' in one for one in drawings)
    assert text.count('aria-live="polite"') == 1


def test_a_page_of_thirty_features_and_two_arms_is_small(usual: ConsoleWorld) -> None:
    page = usual.page()
    whole = len(page.encode()) + len(asset("style.css")) + len(asset("script.js"))
    assert whole <= MAX_PAGE_BYTES
    assert "left out: this page stays small" not in page


def test_quality_is_drawn_once_for_each_arm_with_its_thresholds(usual: ConsoleWorld) -> None:
    page = parse(usual.page())
    plots = [one for one in page.texts("title") if one.startswith(("Calibration", "Scores"))]
    assert [one.partition(": ")[0] for one in plots] == [
        f"{what} of {MODEL} {arm}, matured"
        for arm in ("1 canary", "2 champion")
        for what in ("Calibration", "Scores")
    ]
    arms = usual.data()["traffic"]["arms"]
    for title in (plots[1], plots[3]):
        for name, score in arms[0]["thresholds"].items():
            assert f"{name} from {score:.3g}: " in title
    assert len(page.texts("desc")) == 4


def test_plots_are_given_up_before_rows_are() -> None:
    def block() -> Element:
        plots = element("div", [element("div", element("svg", "x" * 5000))] * 2, class_="plots")
        rows = [Row([f"{i}" * 50], f"{i}") for i in range(9)]
        return element("article", plots, table("", [Column("name")], rows))

    parts = {"drift": [block()], "quality": [element("div", block()) for _ in range(2)]}
    whole = {name: to_html(nodes) for name, nodes in parts.items()}
    room = sum(map(len, whole.values()))
    assert {one.is_whole for one in fit(parts, room).values()} == {True}
    for too_much, left in ((1, "2 plots"), (10_000, "4 plots"), (29_000, "4 plots")):
        fitted = fit(parts, room - too_much)
        assert f"{left} left out: this page stays small." in fitted["quality"].html
        assert "row" not in re.sub("<[^>]*>", "", fitted["quality"].html)
        assert fitted["drift"].is_whole == (too_much < 20_000)
        assert sum(len(one.html) for one in fitted.values()) <= room - too_much
    fitted = fit(parts, room - 31_000)
    assert re.search(r">4 plots and \d rows left out: this page", fitted["quality"].html)
    assert {name: to_html(nodes) for name, nodes in parts.items()} == whole


def test_the_data_tells_the_same(usual: ConsoleWorld) -> None:
    found = usual.data()
    assert found["format"] == 1
    assert found["server"]["state"] == "serving"
    assert found["server"]["generation"] == usual.world.rollout.generation
    arms = {one["arm"]: one for one in found["traffic"]["arms"]}
    assert {name: one["weight"] for name, one in arms.items()} == {"champion": 0.9, "canary": 0.1}
    assert set(arms["champion"]["decisions"]) == {"approve", "review", "decline"}
    assert set(arms["champion"]["thresholds"]) == {"review", "decline"}
    stable, moved = found["drift"]
    assert (stable["version"], moved["version"]) == ("1", "2")
    assert moved["features"][0]["name"] == "customer_amount_0d_mean"
    assert moved["features"][-1]["name"] == drift.RAW_SCORE
    assert moved["score"] > 0.5
    assert stable["score"] < 0.1
    assert [one["cohort"] for one in found["quality"]] == [*quality.ORDER] * 2
    assert found["quality"][0]["metrics"][1]["low"] is None
    assert "curves" not in found["quality"][0]
    assert [one["verb"] for one in found["changes"]] == ["deploy", "start"]
    assert {one["kind"] for one in found["events"]} == {"rollout.change"}
    assert set(found["parts"]) == {*view.HEADINGS, "state", "facts"}
    assert all(isinstance(nodes, list) for nodes in found["parts"].values())


def test_what_the_asker_has_is_not_sent_again(usual: ConsoleWorld) -> None:
    first = usual.data()
    again = usual.data(first["digests"])
    still = {"state", "drift", "quality", "changes", "events"}
    assert not still & set(again["parts"])
    assert len(json.dumps(again)) < len(json.dumps(first)) / 2
    assert set(usual.data({"drift": "other"})["parts"]) == set(first["parts"])


def test_unreadable_headers_are_nothing_seen(usual: ConsoleWorld) -> None:
    answer = usual.get("/console/data", Scoregate_Seen="x" * 100_000 + " :: drift: :")
    assert answer.status is HTTPStatus.OK
    assert "drift" in json.loads(answer.body)["parts"]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    hostile = quality_report(note=HOSTILE, arm=HOSTILE, cohort=HOSTILE)
    monitors = {HOSTILE: monitor_of([WHOLE, "amount"], shift=3.0)}
    with ConsoleWorld(copy_repository(tmp_path / "r"), monitors, [hostile]) as world:
        world.control.Deploy(
            pb.DeployRequest(
                version="1",
                traffic_basis_points=1000,
                options=pb.ChangeOptions(who=MARKUP[:40], why=MARKUP),
            )
        )
        world.events.emit("drift.broken", WHOLE, model=HOSTILE[:60])
        world.world.lifecycle.move(State.NOT_READY, HOSTILE)
        text, data = world.page(), world.get("/console/data").body.decode()
    page = parse(text)
    assert fetched(page) == OWN
    assert text.count("<script") == 1
    assert "<img" not in text
    for told in (text, data):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", told)
    shown = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\\x00\\x07\\x1b[31m"
    for tag in ("h3", "h4", "li", "p", "td"):
        assert any(shown[:60] in one for one in page.texts(tag)), tag
    assert "onerror" not in re.sub(r">[^<]*<|=\"[^\"]*\"", "", text)


def test_routing_keys_are_not_told(tmp_path: Path) -> None:
    with ConsoleWorld(copy_repository(tmp_path / "r")) as world:
        world.control.Deploy(pb.DeployRequest(version="1", traffic_basis_points=1000))
        request = pb.SetOverridesRequest()
        request.set["card-4711"] = "canary"
        world.control.SetOverrides(request)
        told = world.page() + world.get("/console/data").body.decode()
    assert "overrides" in told
    assert "4711" not in told


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ConsoleWorld(copy_repository(tmp_path / "r")) as world:
        world.world.rollout.journal.close()
        for _ in range(3):
            text = world.page()
        data = world.data()
    page = parse(text)
    assert any("is closed" in one for one in page.texts("p"))
    assert "champion" in page.texts("th")
    assert data["changes"] is None
    assert sum("console: changes cannot be read" in line for line in caplog.messages) == 1


def test_states_are_told_by_mark_word_and_reason(tmp_path: Path) -> None:
    with ConsoleWorld(copy_repository(tmp_path / "r")) as world:
        assert "No outcomes yet" in world.page()
        assert "Drift is not monitored" in world.page()
        world.control.Freeze(
            pb.FreezeRequest(frozen=True, options=pb.ChangeOptions(why="release night"))
        )
        assert "Changes are frozen: release night" in parse(world.page()).texts("p")[3]
        world.world.lifecycle.move(State.NOT_READY, "the models are gone")
        page = parse(world.page())
        assert page.texts("strong")[0] == "Not ready"
        assert "Why: the models are gone" in page.texts("p")
        world.world.lifecycle.move(State.DRAINING, "draining")
        assert parse(world.page()).texts("strong")[0] == "Draining"


def test_looks_are_shared(usual: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 5.0
    monkeypatch.setattr(usual.console, "_clock", lambda: now_s)
    monkeypatch.setattr(usual.console, "_view", None)
    first = usual.data()["now_ms"]
    assert usual.data()["now_ms"] == first
    now_s = 6.0
    assert usual.data()["now_ms"] > first


def test_a_scrape_begins_the_five_minutes(tmp_path: Path) -> None:
    with ConsoleWorld(copy_repository(tmp_path / "r")) as world:
        assert list(world.console.families()) == []
        assert len(world.console._looker._history._samples) == 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "10.0.0.7", "a.localhost:1"],
)
def test_addresses_and_this_machine_are_answered(host: str, usual: ConsoleWorld) -> None:
    assert is_ours(host)
    assert usual.get("/console", Host=host).status is HTTPStatus.OK


@pytest.mark.parametrize(
    "host", ["evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example", "[evil]", "x"]
)
def test_names_that_anybody_gave_are_refused(host: str, usual: ConsoleWorld) -> None:
    for path in ("/", "/console", "/console/data", "/console/script.js"):
        answer = usual.get(path, Host=host)
        assert answer.status is HTTPStatus.MISDIRECTED_REQUEST
        assert MODEL.encode() not in answer.body


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.7", "scoring.example")))


def test_every_answer_carries_the_policy(usual: ConsoleWorld) -> None:
    for path in usual.routes:
        assert set(HEADERS) <= set(usual.get(path).headers), path
    root = usual.get("/")
    assert root.status is HTTPStatus.FOUND
    assert ("Location", "/console") in root.headers


def test_the_largest_page_is_small(usual: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list as long as it gets, every foreign text too: the page is bounded."""
    long = "<&\"'" * 100
    told = long[:MAX_TEXT]
    arm = traffic.ArmTraffic(
        MODEL, "a-canary-of-thirty-two-letters-x", "2026-11-24.build-1234567", "forest",
        0.04, 0.01, 0.04, 1234.5, 84.0, 250.0, 0.01, 123_456,
        {"approve": 0.9, "review": 0.08, "decline": 0.02}, {"review": 0.3, "decline": 0.8},
        [traffic.Fallback(f"group-{i}", "default", 1.5, 0.1) for i in range(3)],
        [traffic.Point(300 - 2 * i, 298 - 2 * i, 1000.0 + i % 7, 80.0 + i % 5) for i in range(150)],
    )  # fmt: skip
    flow = traffic.Traffic(10.0, 300.0, 300.0, {"UNAVAILABLE": 1.0}, 3, [arm] * traffic.MAX_ARMS)
    table = stores.Store("batch", "lmdb", told[:64], told, "degraded", told, told[:30], 10**7)
    kept = stores.Stores([table] * stores.MAX_STORES, 3, {})
    names = [f"{i}{told}" for i in range(100)]
    monitor = monitor_of(names, shift=2.0)
    drawn = drift.DriftReader().read(watch_of({f"{i}": monitor for i in range(20)}))
    metrics = quality_report().metrics * 30
    reports = [quality_report(note=long, metrics=metrics, arm=f"{i}") for i in range(50)]
    change = changes.Change(
        10**12, 10**12, told[:60], False, "deploy", told[:200], told[:200], True
    )
    event = events.EventLine(10**15, 10**12, "drift.broken", "critical", MODEL, "2", told, "failed")
    monkeypatch.setattr(view, "read_traffic", lambda *_: flow)
    monkeypatch.setattr(view, "read_stores", lambda *_: kept)
    looker = usual.console._looker
    monkeypatch.setattr(looker, "_read_drift", lambda: drawn)
    monkeypatch.setattr(
        looker, "_read_quality", lambda _: quality.QualityReader().read(reports, {})
    )
    monkeypatch.setattr(looker._changes, "read", lambda _: [change] * changes.N_CHANGES)
    monkeypatch.setattr(looker._events, "read", lambda _: [event] * events.N_EVENTS)
    looked = looker.look()
    sizes = {name: len(part.encoded) for name, part in looked.parts.items()}
    whole = len(make_page(looked).encode()) + len(asset("style.css")) + len(asset("script.js"))
    assert whole <= MAX_PAGE_BYTES, (whole, sizes)
    assert sum(sizes.values()) > 2 * MAX_PAGE_BYTES
    assert whole > 0.9 * MAX_PAGE_BYTES
    assert 'class="plot"' not in make_page(looked)
    looker._kept.clear()
