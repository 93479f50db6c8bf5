"""deploy/grafana: dashboards that are as their script has it, readable, and find their data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.prometheus import ScrapedWorld, is_pending, selectors
from tests.support.serving import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted(GRAFANA.glob("dashboards/*.json"))
# Ids of units, from Grafana's documentation of its value formats.
UNITS = {"short", "percentunit", "s", "reqps", "rps", "ops", "cps", "bytes", "Bps"}
COLUMNS = 24
VARIABLES = {
    "$job": "scoregate",
    "$instance": ".+",
    "$model": ".+",
    "$__rate_interval": "5s",
}
# Sums of rates whose labels are gone, or which name their series in words.
LABEL = re.compile(r"\{\{(\w+)\}\}")


def load(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return board


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in panels(board) for target in panel["targets"]]


def filled_in(expression: str) -> str:
    """Replace Grafana's variables as Grafana does."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", str(folder / "make_dashboards.py"), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_committed_json_is_what_the_script_makes() -> None:
    done = make(GRAFANA, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_sees_a_difference_and_the_script_mends_it(tmp_path: Path) -> None:
    copy = tmp_path / "grafana"
    shutil.copytree(GRAFANA, copy)
    drift, other = copy / "dashboards" / "drift.json", copy / "dashboards" / "other.json"
    whole = drift.read_text("utf-8")
    drift.write_text(whole.replace("0.3", "0.4"))
    other.write_text("{}")
    done = make(copy, "--check")
    assert done.returncode == 1
    assert "drift.json: not as boards/ has it" in done.stderr
    assert "other.json" in done.stderr
    assert make(copy).returncode == 0
    assert drift.read_text("utf-8") == whole
    assert not other.exists()
    assert make(copy, "--force").returncode == 2


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_say_what_they_show_in_which_unit_and_what_is_bad(path: Path) -> None:
    board = load(path)
    assert board["uid"] == f"scoregate-{path.stem}"
    assert board["schemaVersion"] >= 38  # Grafana 10
    for panel in panels(board):
        where = f"{path.stem}: {panel['title']}"
        assert len(panel["description"]) >= 30, where
        assert panel["description"].endswith("."), where
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, where
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None, where
        bounds = [step["value"] for step in steps[1:]]
        assert bounds == sorted(set(bounds)), where
        assert panel["datasource"]["uid"] == "${datasource}", where
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        ids = [target["refId"] for target in panel["targets"]]
        assert ids, where
        assert len(set(ids)) == len(ids), where


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_side_by_side(path: Path) -> None:
    board = load(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_there_are_the_dashboards_that_are_asked_for() -> None:
    names = {"service", "features", "drift", "quality", "rollout"}
    assert {path.stem for path in DASHBOARDS} == names
    for path in DASHBOARDS:
        board = load(path)
        named = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(board["panels"])))
        assert used <= named, path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapedWorld]:
    with ScrapedWorld(tmp_path_factory.mktemp("batch")) as world:
        yield world


def test_every_query_finds_its_data(world: ScrapedWorld) -> None:
    boards = [load(path) for path in DASHBOARDS]
    legends = {
        filled_in(target["expr"]): target["legendFormat"]
        for board in boards
        for target in targets(board)
    }
    annotations = {
        filled_in(annotation["expr"])
        for board in boards
        for annotation in board["annotations"]["list"]
    }
    found = world.prometheus.all_with_data(
        expression for expression in {*legends, *annotations} if not is_pending(expression)
    )
    assert len(found) > 50
    for expression, legend in legends.items():
        assert selectors(expression) or "ALERTS" in expression, expression
        if expression not in found:
            world.prometheus.query(expression)  # no data yet, but no error either
            continue
        there = {label for row in found[expression] for label in row["metric"]}
        assert set(LABEL.findall(legend)) <= there, f"{legend} of {expression}"


def test_every_variable_offers_something(world: ScrapedWorld) -> None:
    for variable in load(DASHBOARDS[0])["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert match
            rows = world.prometheus.query(filled_in(match[1]))
            assert {row["metric"].get(match[2]) for row in rows} - {None}, variable["name"]
