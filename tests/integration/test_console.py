"""The console of a real server in a real browser: live, quiet, safe, and usable without a mouse."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from server.console.quality import ORDER
from server.lifecycle import State
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import feedback_pb2, feedback_pb2_grpc, scoring_pb2
from server.sidecar import Sidecar
from tests.support.browser import CHROMIUM, chromium, opened, until
from tests.support.clients import control, scoring
from tests.support.console import HOSTILE, ConsoleWorld, monitor_of, quality_report
from tests.support.serving import FEATURES, MODEL, Serving, copy_repository

WIDTHS = (390, 820, 1100, 1440)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving(settings={"drift.min_span_s": 0.1, "drift.interval_s": 0.2}) as made:
        score(made, 30)
        yield made


def score(server: Serving, n: int) -> None:
    with grpc.insecure_channel(server.fast) as channel:
        stub = scoring(channel)
        for i in range(n):
            request = scoring_pb2.ScoreRequest(request_id=f"r{i}")
            for name in FEATURES:
                request.named.values[name].number = 1.0
            stub.Score(request)


def change(server: Serving, call: Callable[[Any], object]) -> None:
    with grpc.insecure_channel(server.control) as channel:
        call(control(channel))


def part(page: Any, name: str) -> str:
    return str(page.locator(f"#part-{name}").inner_text())


def test_the_root_leads_to_it(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        page.goto(f"http://{server.sidecar}/")
        assert page.url.endswith("/console")
        assert page.title().startswith("serving – Scoregate")


def test_changes_show_by_themselves(browser: Any, server: Serving) -> None:
    hostile = '<img src=x onerror="window.pwned = 1"><script>window.pwned = 2</script>\''
    with opened(browser, server) as page:
        assert "canary" not in part(page, "traffic")
        options = pb.ChangeOptions(who="ann", why=hostile)
        request = pb.DeployRequest(version="1", traffic_basis_points=2000, options=options)
        change(server, lambda stub: stub.Deploy(request))
        until(page, "document.getElementById('part-changes').innerText.includes('ann')")
        assert hostile in part(page, "changes")
        assert hostile in part(page, "events")
        cells = page.locator("#traffic tbody tr").all_inner_texts()
        assert [cell.split()[0] for cell in cells] == ["champion", "canary"]
        assert "20 %" in cells[1]
        assert page.locator("img").count() == 0
        assert page.evaluate("window.pwned") is None
        change(server, lambda stub: stub.Retire(pb.RetireRequest(arm="canary")))
        until(page, "!document.getElementById('part-traffic').innerText.includes('canary')")


def test_elements_and_focus_are_kept(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        page.evaluate("window.kept = document.querySelector('#traffic table')")
        page.get_by_role("button", name="Pause updates").focus()
        before = page.locator("#now").inner_text()
        until(page, f"document.getElementById('now').innerText !== '{before}'")
        assert page.evaluate("window.kept === document.querySelector('#traffic table')")
        assert page.evaluate("document.activeElement.innerText") == "Pause updates"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, ConsoleWorld]]:
    """A console of two versions with 31 features each, one of them with a hostile name."""
    names = [HOSTILE.replace("\ud800", ""), *(f"customer_amount_{i}d_mean" for i in range(30))]
    monitors = {"1": monitor_of(names), "2": monitor_of(names, shift=2.0)}
    repository = copy_repository(tmp_path_factory.mktemp("console") / "repository")
    reports = [quality_report(cohort=cohort) for cohort in ORDER]
    reports.append(quality_report(version="1", note=HOSTILE, arm=HOSTILE))
    with ConsoleWorld(repository, monitors, reports) as world:
        sidecar = Sidecar("127.0.0.1", 0, world.routes)
        sidecar.start()
        yield sidecar, world
        sidecar.stop()


def test_what_its_reader_opened_stays_open(
    browser: Any, wide: tuple[Sidecar, ConsoleWorld]
) -> None:
    sidecar, world = wide
    with opened(browser, f"127.0.0.1:{sidecar.port}") as page:
        page.locator("#drift summary").last.press("Enter")
        world.world.lifecycle.move(State.NOT_READY, "a test says so")
        until(page, "document.getElementById('part-state').innerText.includes('a test says so')")
        assert page.title().startswith("not ready")
        # The next evaluation replaces the whole part.
        world.monitors["2"].evaluate(1_800_000_000_000, force=True)
        until(page, "document.querySelector('#drift').innerText.includes('01-15 08:00:00 UTC')")
        assert page.locator("#drift details").last.get_attribute("open") is not None
        assert "Worst: </td><script>alert(1)" in part(page, "drift")
        world.world.lifecycle.move(State.SERVING)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(
    browser: Any, wide: tuple[Sidecar, ConsoleWorld], width: int, scheme: str
) -> None:
    size = {"width": width, "height": 844}
    address = f"127.0.0.1:{wide[0].port}"
    with opened(browser, address, viewport=size, color_scheme=scheme) as page:
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Nor does anything inside that could be cut off.
        out = page.evaluate(
            """() => [...document.querySelectorAll('body *')]
                .filter((e) => !e.closest('.skip, thead, svg'))
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                .map((e) => e.outerHTML.slice(0, 100))"""
        )
        assert out == []


def test_calls_show_as_rates(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        score(server, 200)
        until(page, "/[1-9][0-9.]*\\/s/.test(document.getElementById('part-traffic').innerText)")
        until(page, "document.querySelector('#traffic .spark .line') !== null")


def test_outcomes_become_quality(browser: Any) -> None:
    quick = {"feedback.interval_s": 0.2, "feedback.drain_s": 0.05, "feedback.maturity_s": 0.5}
    with Serving(settings=quick) as server, opened(browser, server) as page:
        assert "50 labels" not in part(page, "quality")
        score(server, 50)
        outcomes = [
            feedback_pb2.Outcome(request_id=f"r{i}", label="LABEL_NEGATIVE") for i in range(50)
        ]
        request = feedback_pb2.ReportOutcomesRequest(outcomes=outcomes)
        with grpc.insecure_channel(server.control) as channel:
            stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
            [answer] = list(stub.ReportOutcomes(iter([request])))
        assert answer.accepted == 50
        until(page, "document.querySelector('#quality').innerText.includes('50 labels')")
        names = page.locator("#quality th[scope=row]").all_inner_texts()
        assert any(name.startswith("accuracy") for name in names)
        # The script draws, as the page does.
        until(page, "document.querySelectorAll('#quality svg.plot').length === 2")
        assert page.locator("#quality svg.plot text").first.evaluate("(e) => e.getBBox().width") > 0
        [spread] = page.locator("#quality svg.plot title", has_text="Scores of").all()
        assert f"Scores of {MODEL} 2 champion, " in spread.text_content()
        assert " of decisions" in spread.text_content()


def test_it_can_be_paused(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        button = page.get_by_role("button", name="Pause updates")
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        before = page.locator("#now").inner_text()
        page.wait_for_timeout(3000)
        assert page.locator("#now").inner_text() == before
        button.press("Enter")
        until(page, f"document.getElementById('now').innerText !== '{before}'")


def test_it_works_without_javascript(browser: Any, server: Serving) -> None:
    with opened(browser, server, java_script_enabled=False) as page:
        assert "Without JavaScript this page stands still" in page.locator("noscript").inner_text()
        assert "Serving" in part(page, "state")
        assert "champion" in part(page, "traffic")
        assert "start" in part(page, "changes")
        assert page.get_by_role("button").count() == 0


def test_the_keyboard_and_a_screen_reader_find_their_way(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["y"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for landmark in ("banner", "main", "navigation", "contentinfo"):
            assert page.get_by_role(landmark).count() == 1, landmark
        regions = [one.get_attribute("id") for one in page.get_by_role("region").all()]
        assert regions[:2] == ["traffic", "decisions"]
        arms = page.get_by_role("table", name=f"Arms of {MODEL}.")
        assert arms.get_by_role("columnheader").first.inner_text() == "arm"
        assert arms.get_by_role("rowheader", name="champion").count() == 1
        assert page.get_by_role("img", name=f"Split of {MODEL}: champion 100 %").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(
    browser: Any, wide: tuple[Sidecar, ConsoleWorld], scheme: str
) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5."""
    with opened(browser, f"127.0.0.1:{wide[0].port}", color_scheme=scheme) as page:
        ratios = page.evaluate(
            """() => {
                const parse = (c) => c.match(/[\\d.]+/g).map(Number);
                const light = (c) => {
                    const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
                        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const ground = (e) => {
                    for (; e; e = e.parentElement) {
                        const c = parse(getComputedStyle(e).backgroundColor);
                        if (c.length === 3 || c[3] === 1) return c;
                    }
                };
                const found = [];
                for (const e of document.querySelectorAll('body *:not(svg *)')) {
                    const texts = [...e.childNodes].filter((n) => n.nodeType === 3);
                    if (!texts.some((n) => n.data.trim())) continue;
                    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
                    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML]);
                }
                return found;
            }"""
        )
        assert len(ratios) > 50
        assert [one for one in ratios if one[0] < 4.5] == []


def test_a_server_that_is_gone_is_said(browser: Any) -> None:
    with Serving() as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://{server.sidecar}/console")
        assert page.locator(".lost").inner_text() == ""
        server.end()
        until(page, "document.body.classList.contains('stale')")
        assert page.locator(".lost").inner_text().startswith("✖ No answer from the server since")
        context.close()


def test_a_foreign_name_is_refused(server: Serving) -> None:
    status, text = server.http("/console/data", Host="rebound.example:9464")
    assert status == 421
    assert MODEL not in text
    assert server.http("/metrics", Host="rebound.example")[0] == 200


def test_it_takes_nothing(server: Serving) -> None:
    request = urllib.request.Request(f"http://{server.sidecar}/console", data=b"x")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 501


def test_it_can_be_switched_off() -> None:
    with Serving(settings={"sidecar.console": False}) as server:
        assert server.http("/console") == (404, "no such page; try /metrics, /healthz, /readyz\n")
        assert server.http("/")[0] == 404
        assert server.http("/metrics")[0] == 200
