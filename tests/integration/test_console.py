"""The console of a real server in a real browser: live, quiet, safe, and usable without a mouse."""

from __future__ import annotations

import io
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from server.console.curves import curves_of
from server.console.quality import ORDER
from server.lifecycle import State
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import feedback_pb2, feedback_pb2_grpc, scoring_pb2
from server.sidecar import Sidecar
from tests.support.clients import control, scoring
from tests.support.console import (
    HOSTILE,
    ConsoleWorld,
    curves_report,
    monitor_of,
    quality_report,
)
from tests.support.serving import FEATURES, MODEL, Serving, copy_repository

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Collected by the page itself: what the policy forbade, and what a script would have done.
WATCHED = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
"""
WIDTHS = (390, 820, 1100, 1440)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # In a container there is no user namespace to build its sandbox of.
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


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


@contextmanager
def opened(browser: Any, server: Serving | str, **settings: Any) -> Iterator[Any]:
    """Open the console; at the end nothing was forbidden, said or asked for elsewhere."""
    base = f"http://{server if isinstance(server, str) else server.sidecar}/"
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    context.add_init_script(WATCHED)
    said: list[str] = []
    asked: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(15_000)
    page.goto(base + "console")
    yield page
    if settings.get("java_script_enabled", True):
        assert page.evaluate("violations") == []
    assert said == []
    assert [url for url in asked if not url.startswith((base, "data:"))] == []
    context.close()


def until(page: Any, expression: str, timeout_s: float = 20.0) -> None:
    """Wait for an expression; by ourselves, because the policy forbids the client's own `eval`."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"it never came to be: {expression}"
        page.wait_for_timeout(50)


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


def boxes(page: Any, selector: str) -> list[dict[str, float]]:
    return [one.bounding_box() for one in page.locator(selector).all()]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_seen(
    browser: Any, wide: tuple[Sidecar, ConsoleWorld], width: int, scheme: str
) -> None:
    size = {"width": width, "height": 844}
    address = f"127.0.0.1:{wide[0].port}"
    with opened(browser, address, viewport=size, color_scheme=scheme) as page:
        assert page.locator("svg.plot").count() == 4
        for plot in page.locator("svg.plot").all():
            outer = plot.bounding_box()
            assert 260 <= outer["width"] <= 440
            assert outer["width"] / outer["height"] == pytest.approx(340 / 234, rel=0.01)
            found = plot.evaluate(
                """(svg) => [...svg.querySelectorAll('text')].map((e) => {
                    const { left, top, right, bottom } = e.getBoundingClientRect();
                    return [left, top, right, bottom, e.textContent];
                })"""
            )
            assert len(found) > 8
            for left, _, right, _, said in found:
                assert 0 <= left <= right <= width, said
            # No letters upon others; boxes of lines are higher than what is in them.
            for i, (a, b, c, d, said) in enumerate(found):
                for left, top, right, bottom, other in found[:i]:
                    is_apart = left >= c or right <= a or top >= d - 4 or bottom <= b + 4
                    assert is_apart, (said, other)
        # Beside each other where there is room.
        first, second = boxes(page, ".plots >> nth=0 >> svg.plot")
        assert (first["y"] == second["y"]) == (width == 1440)
        # And so the other cohorts.
        drawn, others = boxes(page, ".version >> nth=1 >> xpath=./*")
        assert (drawn["y"] == others["y"]) == (width == 1440)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_points_are_where_the_groups_are(
    browser: Any, wide: tuple[Sidecar, ConsoleWorld], scheme: str
) -> None:
    """What the browser paints, in pixels of the screen: the diagonal and the points."""
    with opened(browser, f"127.0.0.1:{wide[0].port}", color_scheme=scheme) as page:
        plot = page.get_by_role("img", name=f"Calibration of {MODEL} 2 champion, matured").first
        left, bottom, right, top = plot.evaluate(
            """(svg) => {
                const line = svg.querySelector('.diagonal');
                const at = svg.getScreenCTM();
                const of = (x, y) => new DOMPoint(line[x].baseVal.value, line[y].baseVal.value)
                    .matrixTransform(at);
                const [a, b] = [of('x1', 'y1'), of('x2', 'y2')];
                return [a.x, a.y, b.x, b.y];
            }"""
        )
        dots = plot.evaluate(
            """(svg) => [...svg.querySelectorAll('.dot')].flatMap((e) => {
                const at = svg.getScreenCTM();
                return [...e.getAttribute('d').matchAll(/M([\\d.]+) ([\\d.]+)h0/g)]
                    .map((m) => new DOMPoint(+m[1], +m[2]).matrixTransform(at))
                    .map((p) => [p.x, p.y]);
            })"""
        )
        groups = curves_report()[1]
        assert len(dots) == len(groups) >= 15
        curves = curves_of(quality_report(), [("decline", 0.8)])
        assert curves is not None

        def place(share: float, start: float, end: float) -> float:
            inner = min(max(share, 1e-9), 1 - 1e-9)  # at the edge, then
            part = (np.log10(inner / (1 - inner)) - curves.low) / (curves.high - curves.low)
            return float(start + (end - start) * np.clip(part, 0, 1))

        expected = sorted(
            (place(one.mean_score, left, right), place(one.positive_share, bottom, top))
            for one in groups
        )
        assert np.array(sorted(dots)) == pytest.approx(np.array(expected), abs=0.5)
        # Painted, round, and seen from afar: 3 to 1 against its ground (WCAG 2.2, 1.4.11).
        x, y = expected[-1]
        shot = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
        dot, ground = shot[round(y), round(x)], shot[round(top) + 3, round(left) + 9]
        assert contrast(dot, ground) >= 3
        assert contrast(shot[round(y), round(x) + 6], ground) < 3
        text = plot.evaluate("(svg) => getComputedStyle(svg.querySelector('text')).fill")
        assert contrast([int(one) for one in re.findall(r"\d+", text)[:3]], ground) >= 4.5


def contrast(one: Any, other: Any) -> float:
    """Return the contrast of two colours, as WCAG 2.2 defines it."""

    def light(colour: Any) -> float:
        parts = np.asarray(colour, np.float64) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([light(one), light(other)])
    return (high + 0.05) / (low + 0.05)


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
