"""deploy/prometheus: rules that promtool accepts, that do what they say and find their data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.prometheus import (
    DEPLOY,
    PENDING,
    ScrapedWorld,
    is_pending,
    promtool,
    selectors,
)
from tests.support.serving import ROOT, Serving

RULES = sorted(DEPLOY.glob("rules/*.yml"))
UNIT_TESTS = sorted(DEPLOY.glob("tests/*.yml"))
PAGES = {
    "ScoregateErrorsBurnFast",
    "ScoregateErrorsBurn",
    "ScoregateLatencyBurnFast",
    "ScoregateLatencyBurn",
    "ScoregateDown",
}


def test_configuration_and_rules_are_accepted() -> None:
    done = promtool("check", "config", "--lint=all", "--lint-fatal", DEPLOY / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rule files found" in done.stdout


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    alerts = {
        name for path in RULES for name in re.findall(r"- alert: (\w+)", path.read_text("utf-8"))
    }
    fired = set()
    for path in UNIT_TESTS:
        text = path.read_text("utf-8")
        fired |= set(re.findall(r'alertname="(\w+)"', text))
        fired |= set(
            re.findall(r"- alertname: (\w+)", text)
        )  # written so where alerts are expected
    assert alerts == fired


def test_a_rule_that_were_wrong_would_be_seen(tmp_path: Path) -> None:
    for name in ("rules", "tests"):
        (tmp_path / name).mkdir()
    rule = (DEPLOY / "rules" / "drift.yml").read_text("utf-8")
    assert "max > 0.3 unless" in rule
    (tmp_path / "rules" / "drift.yml").write_text(
        rule.replace("max > 0.3 unless", "max > 0.5 unless")
    )
    unit_test = tmp_path / "tests" / "drift.yml"
    unit_test.write_text((DEPLOY / "tests" / "drift.yml").read_text("utf-8"))
    done = promtool("test", "rules", unit_test)
    assert done.returncode == 1
    assert "ScoregateModelRetrain" in done.stdout + done.stderr


def test_metrics_of_a_server_are_clean() -> None:
    with Serving() as server:
        text = server.http("/metrics")[1]
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unclean = promtool("check", "metrics", text="# TYPE lost counter\nlost 1\n")
    assert unclean.returncode != 0


def test_selectors_are_found_in_expressions() -> None:
    text = 'sum by (up_to, model) (rate(ml_a_total{code=~"A|B"}[5m])) / up{job="x"} or job:ml_b:max'
    assert [one.text for one in selectors(text)] == [
        'ml_a_total{code=~"A|B"}',
        'up{job="x"}',
        "job:ml_b:max",
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapedWorld]:
    with ScrapedWorld(tmp_path_factory.mktemp("batch")) as world:
        yield world


@pytest.fixture(scope="module")
def rules(world: ScrapedWorld) -> list[dict[str, Any]]:
    return world.prometheus.rules()


def test_every_rule_is_evaluated_without_an_error(world: ScrapedWorld) -> None:
    expressions = [rule["query"] for rule in world.prometheus.rules()]
    # Recorded series first, alerts from them: a turn or two until everything is there.
    world.prometheus.all_with_data(["job:scoregate_slo_errors:ratio_rate3d"])
    for rule in world.prometheus.rules():
        assert rule["health"] == "ok", rule
        assert not rule.get("lastError"), rule
    text = "".join(path.read_text("utf-8") for path in RULES)
    assert len(expressions) == len(re.findall(r"^ +- (?:alert|record): ", text, re.MULTILINE))


def test_everything_that_a_rule_looks_at_is_there(
    world: ScrapedWorld, rules: list[dict[str, Any]]
) -> None:
    recorded = [rule["query"] for rule in rules if rule["type"] == "recording"]
    looked_at = {one.text for rule in rules for one in selectors(rule["query"])}
    assert all(selectors(rule["query"]) or "vector" in rule["query"] for rule in rules)
    world.prometheus.all_with_data(text for text in {*recorded, *looked_at} if not is_pending(text))


def test_what_is_said_to_be_missing_is_missing(world: ScrapedWorld) -> None:
    """The list of what no server has yet can only shrink."""
    there = [name for name in PENDING if world.prometheus.query(f"count({name})")]
    assert not there, f"take them off PENDING: {there}"


def test_a_healthy_server_wakes_nobody(world: ScrapedWorld) -> None:
    world.prometheus.all_with_data(["changes(scoregate_plan_generation[10m]) > 0"])
    states = {rule["name"]: rule["state"] for rule in world.prometheus.rules() if "state" in rule}
    loud = {name for name, state in states.items() if state == "firing"}
    assert loud <= {"ScoregatePlanChanged"}
    # A caller that is wrong uses up no budget of ours: not even pending. Latency is the machine's.
    wakes = {name for name in PAGES if "Latency" not in name}
    assert {states[name] for name in wakes} == {"inactive"}


def test_an_alert_says_what_to_do_and_where_to_read_on(rules: list[dict[str, Any]]) -> None:
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    assert {rule["name"] for rule in alerts if rule["labels"]["severity"] == "page"} == PAGES
    for rule in alerts:
        assert rule["name"].startswith("Scoregate")
        assert rule["labels"]["severity"] in ("page", "ticket", "info")
        notes = rule["annotations"]
        assert len(notes["summary"]) < 150
        assert len(notes["description"]) > 100
        path, _, heading = notes["runbook"].partition("#")
        text = (ROOT / path).read_text("utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}
        assert not heading or heading in anchors, notes["runbook"]
