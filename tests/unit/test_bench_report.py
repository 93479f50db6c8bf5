"""The report: one file, no network, everything marked that has to be; rendered by a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import plots, report, results, sections
from bench.errors import ResultError
from bench.hdr import Histogram
from bench.outcome import summary
from bench.results import Spread, Target

SVG = "{http://www.w3.org/2000/svg}"


def histogram(seed: int, level_us: float) -> Histogram:
    made = Histogram()
    for value in np.random.default_rng(seed).lognormal(0.0, 0.4, 3000):
        made.record(int(value * level_us * 1e3))
    return made


def run(name: str, server: str, repetition: int, level_us: float, **more: Any) -> dict[str, Any]:
    latency = histogram(repetition, level_us)
    series = [
        {"second": i, "calls": 9, "errors": 0, "p50_us": 1.0 + i, "p99_us": 9.0 + i, "max_us": 20.0}
        for i in range(4)
    ]
    quantities = {
        "calls_per_s": 1000.0 + repetition,
        "cpu_us_per_call": 4.0 + repetition / 10,
        "n_errors": 0.0,
        "p50_us": latency.percentile(50) / 1e3,
        "p99_us": latency.percentile(99) / 1e3,
        "p999_us": latency.percentile(99.9) / 1e3,
        "p9999_us": latency.percentile(99.99) / 1e3,
    }
    return {
        "run": name,
        "server": server,
        "repetition": repetition,
        "load": {},
        "quantities": quantities,
        "result": {"latency": summary(latency), "series": series},
        "valid": True,
        "reasons": [],
        "client_bound": False,
        "beside": {},
        "watch": {"seconds": [0.0, 1.0, 2.0], "rss_bytes": [1e8, 1e8, 1.01e8]},
        "points": [],
        **more,
    }


def scenario_document(**more: Any) -> dict[str, Any]:
    runs = [run("echo", "echo", i, 50) for i in range(3)]
    runs += [run("score", "score", i, 80) for i in range(3)]
    values = {
        "scenario": {
            "title": "Steady <load>",
            "about": "About & more",
            "runs": [{"name": "echo"}, {"name": "score"}],
        },
        "valid": True,
        "invalid_reasons": [],
        "unjudged": [],
        "metrics": {"score.p99_us": Spread.of([1.0, 2.0, 3.0])},
        "ratios": {},
        "runs": runs,
        **more,
    }
    promises = [Target("p99_ratio", 1.4, "<=", 2.0), Target("cpu_ratio", 1.7, "<=", 1.45)]
    return results.document(values, promises, "scoregate bench run steady")


def latest_document() -> dict[str, Any]:
    runs = []
    for step in ("closed", "offered", "half", "single"):
        for server in ("echo", "score"):
            runs += [run(f"{step}_{server}", server, i, 60) for i in range(2)]
    runs.append(run("aio_grpc_aio", "grpc_aio", 0, 500))
    runs[0]["client_bound"] = True
    values = {"scores_per_second": Spread.of([1e5, 2e5]), "server_rss_bytes": 9.8e7, "runs": runs}
    return results.document(values, [Target("server_rss_bytes", 9.8e7, "<=", 120e6)], "make bench")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("results")
    results.save(folder / "steady.json", scenario_document())
    results.save(folder / "latest.json", latest_document())
    return report.page(report.collect(sorted(folder.glob("*.json"), reverse=True)))


class Page(HTMLParser):
    """Counts elements, and collects ids and everything that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data") and value:
                self.links.append(value)


def parsed(text: str) -> Page:
    found = Page()
    found.feed(text)
    return found


def test_the_page_is_one_file_without_network_or_script(page: str) -> None:
    found = parsed(page)
    assert all(link.startswith("#") for link in found.links), found.links
    assert not {"script", "link", "iframe", "img", "object"} & set(found.tags)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique_and_every_reference_is_there(page: str) -> None:
    found = parsed(page)
    assert len(found.ids) == len(set(found.ids))
    wanted = {link[1:] for link in found.links} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted <= set(found.ids)


def test_every_plot_is_well_formed_and_takes_its_colours_from_the_page(page: str) -> None:
    figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        root = ET.fromstring(figure)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        colours = set(re.findall(r"(?:fill|stroke): ?(#\w+)", figure))
        assert not colours, "a colour that a dark page cannot change"
        assert "var(--s1)" in figure
    for variable in set(re.findall(r"var\((--\w[\w-]*)\)", page)):
        assert f"{variable}:" in page, f"{variable} is used and not defined"


def test_promises_machine_commit_and_command_are_shown(page: str) -> None:
    document = scenario_document()
    assert "2 of 3 promises met" in page
    assert page.count(">not met<") == 1
    assert "at most 120 MB" in page
    assert document["machine"]["processor"] in page
    assert document["commit"] in page
    assert "make bench" in page
    assert "prefers-color-scheme: dark" in page


def test_text_of_a_file_is_text(page: str) -> None:
    assert "Steady &lt;load&gt;" in page
    assert "Steady <load>" not in page


def test_client_bound_and_invalid_runs_are_marked(tmp_path: Path) -> None:
    document = scenario_document(valid=False, invalid_reasons=["score, repetition 1: too <late>"])
    document["runs"][0]["client_bound"] = True
    document["runs"][3] |= {"valid": False, "n_attempts": 3}
    path = tmp_path / "steady.json"
    results.save(path, document)
    found = report.collect([path])
    page, text = report.page(found), report.markdown(found)
    assert "some runs are not valid" in page
    assert "too &lt;late&gt;" in page
    rows = sections.run_rows(document)
    assert rows[0][-1] == "client-bound"
    assert rows[1][-1] == "not valid, 2 made again"
    assert "pattern" in page, "a hatched bar"
    assert "Not valid: score, repetition 1" in text
    assert "| p99_ratio | 1.4 | <= 2 | met |" in text


def test_a_sweep_becomes_latency_against_load(tmp_path: Path) -> None:
    points = [
        {"offered_per_s": 100.0 * i, "kept": i < 3, "p50_us": 5.0 * i, "p99_us": 9.0 * i}
        for i in range(1, 4)
    ]
    document = scenario_document()
    for each in document["runs"]:
        each["points"] = points
        each["quantities"]["knee_per_s"] = 200.0
    path = tmp_path / "ramp.json"
    results.save(path, document)
    page = report.page(report.collect([path]))
    assert page.count("Latency against load") == 2
    assert "The knee" in page


def test_percentiles_of_a_plot_are_the_histograms() -> None:
    found = histogram(1, 100)
    svg = plots.percentiles("t", {"echo": found}, {"echo": 0}, "label")
    line = max(re.findall(r'd="(M [^"]+)"', svg), key=len)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", line)]
    assert heights == sorted(heights, reverse=True), "latency grows with the percentile"


def test_no_results_is_an_error() -> None:
    with pytest.raises(ResultError, match="no result files"):
        report.collect([])


def test_numbers_are_written_for_people() -> None:
    shown = [plots.number(x) for x in (0, 1e-17, 0.0123456, 3.14159, 1234567.8, float("nan"))]
    assert shown == ["0", "0", "0.0123", "3.14", "1,234,568", "-"]
    assert plots.quantity("server_rss_bytes", 9.81e7) == "98.1 MB"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_it(page: str, dark: bool, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here; on Debian: apt-get install -y chromium")
    if dark:
        page = page.replace("@media (prefers-color-scheme: dark)", "@media all")
    html, png = tmp_path / "report.html", tmp_path / "report.png"
    html.write_text(page, encoding="utf-8")
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--hide-scrollbars", "--window-size=1280,1600"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={png}", html.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    image = pytest.importorskip("matplotlib.image").imread(png)[..., :3]
    assert image.shape == (1600, 1280, 3)
    brightness = image.mean()
    assert brightness < 0.35 if dark else brightness > 0.75
    # The first series' blue is on the page, as bars: it has been drawn, not only laid out.
    blue = (image[..., 2] > 0.75) & (image[..., 0] < 0.45)
    assert blue.sum() > 3000
