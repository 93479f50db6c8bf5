"""The plots of quality in a real browser: where points are, and whether they can be read."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from server.console.curves import curves_of
from server.console.quality import ORDER
from server.sidecar import Sidecar
from tests.support.browser import CHROMIUM, chromium, opened
from tests.support.console import HOSTILE, ConsoleWorld, curves_report, quality_report
from tests.support.serving import MODEL, copy_repository

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A console of one version with all cohorts, and of one with a hostile arm."""
    reports = [quality_report(cohort=cohort) for cohort in ORDER]
    reports.append(quality_report(version="1", arm=HOSTILE))
    repository = copy_repository(tmp_path_factory.mktemp("console") / "repository")
    with ConsoleWorld(repository, None, reports) as world:
        sidecar = Sidecar("127.0.0.1", 0, world.routes)
        sidecar.start()
        yield f"127.0.0.1:{sidecar.port}"
        sidecar.stop()


def boxes(page: Any, selector: str) -> list[dict[str, float]]:
    return [one.bounding_box() for one in page.locator(selector).all()]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_seen(browser: Any, address: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 844}
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
def test_points_are_where_the_groups_are(browser: Any, address: str, scheme: str) -> None:
    """What the browser paints, in pixels of the screen: the diagonal and the points."""
    with opened(browser, address, color_scheme=scheme) as page:
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
