"""Who gets which version, what it does to decisions, and whether every server followed."""

from __future__ import annotations

from panels import GREEN, MODEL, RED, SERVER, YELLOW, Board, Panel, Query, Row, rate, shares, steps

RATE = "[$__rate_interval]"
NAME = "{{model}} {{model_version}}"
CALLS = rate("ml_predictions_total", "model, model_version")

PLAN = Row(
    "The plan",
    (
        Panel(
            "Arms in force",
            "What each server's plan says now: versions, their arms and their share of the "
            "routing buckets. scoregate history says who changed it, when and why.",
            (Query(f"ml_arm_weight{{{MODEL}}}"),),
            "percentunit",
            kind="table",
            width=12,
            maximum=1,
        ),
        Panel(
            "Bundles in force",
            "The sha256 of each bundle's manifest and the engine that scores it. One version with "
            "two hashes means that servers have different files under one name.",
            (Query(f"ml_model_info{{{MODEL}}}"),),
            "short",
            kind="table",
            width=12,
            hidden=("Value",),
        ),
        Panel(
            "Share of buckets by arm",
            "Mean over the servers, 0 to 1. A key keeps its arm: changing shares moves the fewest "
            "keys.",
            (
                Query(
                    f"avg by (model, arm, model_version) (ml_arm_weight{{{MODEL}}})",
                    "{{model}} {{arm}} {{model_version}}",
                ),
            ),
            "percentunit",
            stacked=True,
            maximum=1,
        ),
        Panel(
            "Servers by version",
            "How many servers have each version in their plan. Every server is operated by "
            "itself: a rollback is done when this says so for all.",
            (
                Query(
                    f"count by (model, model_version) (ml_arm_weight{{{MODEL}}} > 0)",
                    NAME,
                ),
            ),
            "short",
        ),
        Panel(
            "Changes of plan",
            "In the last 10 minutes, by server.",
            (Query(f"changes(scoregate_plan_generation{{{SERVER}}}[10m])", "{{instance}}"),),
            "short",
            thresholds=steps((1, "blue")),
        ),
    ),
)

VERSIONS = Row(
    "Versions beside each other",
    (
        Panel(
            "Share of answers by version",
            "What was really answered; follows the share of buckets, as far as keys are alike.",
            (
                Query(
                    f"{CALLS} / on (model) group_left () sum by (model) "
                    f"(rate(ml_predictions_total{{{MODEL}}}{RATE}))",
                    NAME,
                ),
            ),
            "percentunit",
            stacked=True,
            maximum=1,
        ),
        Panel(
            "Answers by version",
            "Score calls answered with a decision, per second. After a rollback the version that "
            "left falls to 0.",
            (Query(CALLS, NAME),),
            "reqps",
        ),
        Panel(
            "Degraded answers by version",
            "Share. A new version that reads a group which the old one did not may find its "
            "records missing.",
            (
                Query(
                    rate("ml_predictions_degraded_total", "model, model_version") + " / " + CALLS,
                    NAME,
                ),
            ),
            "percentunit",
            thresholds=steps((0.01, YELLOW), (0.05, RED)),
        ),
        Panel(
            "Decisions by version",
            "Share of each decision among a version's answers. A canary that declines twice as "
            "often as the champion shows here within minutes, long before labels do.",
            (
                Query(
                    shares("ml_decisions_total", "decision", "model, model_version"),
                    NAME + " {{decision}}",
                ),
            ),
            "percentunit",
            width=12,
            maximum=1,
        ),
        Panel(
            "Failed calls around a change",
            "Share of calls that failed through no fault of the caller, of all versions: a call "
            "that fails has no version. The objective allows 0.1 %.",
            (
                Query(
                    'job:scoregate_slo_errors:ratio_rate5m{job="$job",slo="availability"}', "failed"
                ),
            ),
            "percentunit",
            thresholds=steps((0.001, YELLOW), (0.0144, RED)),
            width=12,
        ),
        Panel(
            "Memory of models",
            "What each loaded version holds, of the plan in force. Earlier plans' models stay for "
            "a while beside it, for a rollback that reads nothing from disk.",
            (Query(f"max by (model, model_version) (ml_model_resident_bytes{{{MODEL}}})", NAME),),
            "bytes",
            thresholds=steps((1 << 30, YELLOW), base=GREEN),
            width=12,
        ),
        Panel(
            "Drift score by version",
            "A new version has a reference of its own: one that drifts from its first hour was "
            "trained on other data than it serves.",
            (Query(f"max by (model, model_version) (ml_data_drift_score{{{MODEL}}})", NAME),),
            "short",
            thresholds=steps((0.1, YELLOW), (0.3, RED)),
            maximum=1,
            width=12,
        ),
    ),
)

BOARD = Board(
    "rollout",
    "Scoregate: rollout",
    "Versions, their shares, and what they do to decisions.",
    (PLAN, VERSIONS),
)
