"""Whether what the models are asked still looks like what they learned from."""

from __future__ import annotations

from panels import GREEN, MODEL, RED, SERVER, YELLOW, Board, Panel, Query, Row, rate, shares, steps

RATE = "[$__rate_interval]"
DRIFT = steps((0.1, YELLOW), (0.3, RED))
NAME = "{{model}} {{model_version}}"


def top(metric: str) -> str:
    """Return the ten features that stand out most, the worst of all servers each."""
    return f"topk(10, max by (model, model_version, feature) ({metric}{{{MODEL}}}))"


def worst(metric: str) -> str:
    """Return the worst of all servers, by model and version."""
    return f"max by (model, model_version) ({metric}{{{MODEL}}})"


VERDICT = Row(
    "Verdict",
    (
        Panel(
            "State",
            "Of each model and version, on each server. warming: too few rows yet; stable; "
            "warning: watch; retrain: moved far in two windows and over the day; broken: values "
            "go missing or fall back: mend the pipeline, retrain nothing.",
            (
                Query(
                    " + on (instance, model, model_version) ".join(
                        f'{level} * ml_drift_state{{{MODEL},state="{state}"}}'
                        for level, state in enumerate(("stable", "warning", "retrain", "broken"), 1)
                    ),
                    "{{instance}} " + NAME,
                ),
            ),
            "short",
            kind="state-timeline",
            thresholds=steps((1, GREEN), (2, YELLOW), (3, RED), base="text"),
            mappings=(
                (0, "warming", "text"),
                (1, "stable", GREEN),
                (2, "warning", YELLOW),
                (3, "retrain", RED),
                (4, "broken", "purple"),
            ),
            width=12,
        ),
        Panel(
            "Drift score",
            "The strongest significant change of any feature, of the scores, or of missing and "
            "fallback rates; 0 to 1. Warning from 0.1, retrain from 0.3. Empty: too few rows to "
            "judge.",
            (Query(worst("ml_data_drift_score"), NAME),),
            "short",
            thresholds=DRIFT,
            maximum=1,
            width=12,
        ),
        Panel(
            "Drift of the scores",
            "How far the distribution of the model's own scores is from the reference: what of "
            "the features' drift reaches the decisions.",
            (Query(worst("ml_score_drift_score"), NAME),),
            "short",
            thresholds=DRIFT,
            maximum=1,
        ),
        Panel(
            "Features that drift",
            "Share of the features with a significant change. One: mostly a fault upstream. Many: "
            "mostly the world.",
            (Query(worst("ml_drift_features_drifted_ratio"), NAME),),
            "percentunit",
            thresholds=steps((0.2, YELLOW), (0.5, RED)),
            maximum=1,
        ),
        Panel(
            "Mean over the features",
            "For comparison: a mean hides one broken feature among many, so no alert uses it.",
            (Query(worst("ml_drift_score_mean"), NAME),),
            "short",
            thresholds=DRIFT,
            maximum=1,
        ),
    ),
)

FEATURES = Row(
    "Which features",
    (
        Panel(
            "Features that moved most",
            "The ten with the highest drift. scoregate drift report says how: quantiles and "
            "categories before and after.",
            (Query(top("ml_feature_drift_score"), NAME + " {{feature}}"),),
            "short",
            thresholds=DRIFT,
            maximum=1,
            width=12,
        ),
        Panel(
            "Features missing most",
            "Share of the sampled rows without a usable value of the feature. A step is a broken "
            "pipeline, whatever the level was.",
            (Query(top("ml_feature_missing_ratio"), NAME + " {{feature}}"),),
            "percentunit",
            thresholds=steps((0.1, YELLOW), (0.5, RED)),
            maximum=1,
            width=12,
        ),
        Panel(
            "Decisions",
            "Share of each decision. What drift does to the business shows here first.",
            (
                Query(
                    shares("ml_decisions_total", "decision", "model"),
                    "{{model}} {{decision}}",
                ),
            ),
            "percentunit",
            stacked=True,
            width=12,
        ),
        Panel(
            "Values of requests that could not be used",
            "Per second, by cause: beside the features above it says whether values were not sent "
            "(absent, null) or not as the schema has them (range, unseen, infinite).",
            (Query(rate("ml_feature_missing_total", "cause"), "{{cause}}"),),
            "ops",
            width=12,
        ),
    ),
)

MONITOR = Row(
    "The monitor itself",
    (
        Panel(
            "Age of the last evaluation",
            "Every 30 s while rows come in; a ticket from 90 s on. Grows without traffic, which "
            "is no fault.",
            (
                Query(
                    f"time() - ml_drift_last_evaluation_timestamp_seconds{{{MODEL}}}",
                    "{{instance}} " + NAME,
                ),
            ),
            "s",
            thresholds=steps((60, YELLOW), (90, RED)),
        ),
        Panel(
            "Rows in the windows",
            "The fast window judges from 600 rows on, the slow one holds a day.",
            (
                Query(
                    f"ml_drift_window_observations{{{MODEL}}}",
                    "{{instance}} " + NAME + " {{window}}",
                ),
            ),
            "short",
            thresholds=steps((600, GREEN), base=YELLOW),
        ),
        Panel(
            "Time that the windows span",
            "A fast window of under 10 minutes is not judged: traffic within minutes is too much "
            "alike.",
            (
                Query(
                    f"ml_drift_window_span_seconds{{{MODEL}}}",
                    "{{instance}} " + NAME + " {{window}}",
                ),
            ),
            "s",
            thresholds=steps((600, GREEN), base=YELLOW),
        ),
        Panel(
            "Evaluations, by result",
            "Per second. failed: the server's log has the exception; scoring is untouched.",
            (
                Query(
                    rate("ml_drift_evaluations_total", "result"),
                    "{{result}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Duration of an evaluation",
            "In the background, on one core. 30 features and 5,000 rows take up to 30 ms.",
            (Query(f"ml_drift_evaluation_duration_seconds{{{MODEL}}}", "{{instance}} " + NAME),),
            "s",
            thresholds=steps((0.1, YELLOW), (1, RED)),
        ),
        Panel(
            "Age of the reference",
            "Time since the rows were taken that the model is compared with. An old reference "
            "drifts by itself: retrain, or build a new one.",
            (
                Query(
                    "time() - max by (model, model_version) "
                    f"(ml_drift_reference_timestamp_seconds{{{MODEL}}})",
                    NAME,
                ),
            ),
            "s",
            thresholds=steps((90 * 86_400, YELLOW), (365 * 86_400, RED)),
        ),
        Panel(
            "Rows captured and dropped",
            "Per second. Dropped: a ring was full, because its reader got too little CPU; "
            "requests never wait for it. A ticket from 1 % on.",
            (
                Query(rate("ml_drift_samples_total", where=SERVER), "captured"),
                Query(rate("ml_drift_samples_dropped_total", where=SERVER), "dropped"),
            ),
            "rps",
        ),
        Panel(
            "Fill of the rings",
            "Each loop's ring of captured rows; near 1 rows are dropped.",
            (
                Query(
                    f"scoregate_capture_ring_fill_ratio{{{SERVER}}}", "{{instance}} loop {{loop}}"
                ),
            ),
            "percentunit",
            thresholds=steps((0.5, YELLOW), (0.9, RED)),
            maximum=1,
        ),
        Panel(
            "Events",
            "Retrain, broken-pipeline and rollback events, by what became of them.",
            (
                Query(
                    rate("scoregate_events_total", "kind, result", SERVER),
                    "{{kind}} {{result}}",
                ),
            ),
            "ops",
        ),
    ),
)

BOARD = Board(
    "drift",
    "Scoregate: drift",
    "What the models are asked, compared with their references, and the monitors' own health.",
    (VERDICT, FEATURES, MONITOR),
)
