"""How well the models do, how sure that is, and whether outcomes come."""

from __future__ import annotations

from panels import (
    GREEN,
    MODEL,
    RED,
    SERVER,
    YELLOW,
    Board,
    Panel,
    Query,
    Row,
    rate,
    steps,
)

NAME = "{{model}} {{model_version}} {{arm}}"
THRESHOLD = NAME + " {{threshold}}"
BY = "model, model_version, arm"
MATURED = f'{MODEL},cohort="matured"'
LABELLED = f'{MODEL},cohort="labelled"'


def figure(metric: str, by: str = BY, where: str = MATURED) -> str:
    """Return the mean of a figure over the servers: each measures its own decisions."""
    return f"avg by ({by}) ({metric}{{{where}}})"


def bounded(metric: str, legend: str, by: str = BY) -> tuple[Query, ...]:
    """Return a figure with the widest interval of any server."""
    return (
        Query(figure(metric, by), legend),
        Query(f"min by ({by}) ({metric}_low{{{MATURED}}})", legend + " low"),
        Query(f"max by ({by}) ({metric}_high{{{MATURED}}})", legend + " high"),
    )


FOUND = Row(
    "What matured decisions came to",
    (
        Panel(
            "Recall",
            "Share of the frauds that reach each threshold, of matured decisions, with its 95 % "
            "interval. A ticket when even its upper end is under scoregate:recall_target:ratio. 0 "
            "at the strictest threshold: blocked traffic hides its outcomes; explore a share.",
            bounded("ml_model_recall", THRESHOLD, f"{BY}, threshold"),
            "percentunit",
            maximum=1,
            width=12,
        ),
        Panel(
            "Precision",
            "Share of frauds among the decisions that reach each threshold, with its 95 % "
            "interval. Falling: more good customers are stopped. Empty: none of them can show its "
            "outcome, or none was taken.",
            bounded("ml_model_precision", THRESHOLD, f"{BY}, threshold"),
            "percentunit",
            maximum=1,
            width=12,
        ),
        Panel(
            "Recall, of the money",
            "Share of the reported amounts of fraud that reach each threshold: what recall is in "
            "the accounts. Empty: outcomes bring no amounts.",
            (
                Query(
                    figure("ml_model_value_recall", f"{BY}, threshold"),
                    THRESHOLD,
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Ranking",
            "AUC: how often a fraud scores above a good payment; compare with the figure of "
            "scoregate inspect. Average precision depends on how rare fraud is: compare weeks, not "
            "models of different traffic.",
            (
                Query(figure("ml_model_auc"), NAME + " AUC"),
                Query(figure("ml_model_average_precision"), NAME + " average precision"),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Cards that were fraudulent among the first",
            "Share of cards with fraud among the k most suspicious of a day: what analysts who "
            "look into k cards find.",
            (
                Query(
                    figure("ml_model_card_precision", f"{BY}, k"),
                    NAME + " first {{k}}",
                ),
            ),
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Calibration",
            "Mean distance between what scores promise and what came (calibration error), and "
            "Brier's score; 0 is best. Rising: estimates below lose their ground.",
            (
                Query(figure("ml_model_calibration_error"), NAME + " calibration error"),
                Query(figure("ml_model_brier_score"), NAME + " Brier"),
            ),
            "short",
            thresholds=steps((0.05, YELLOW), (0.1, RED)),
        ),
        Panel(
            "Accuracy",
            "Share of decisions on the right side. Where one payment in a thousand is fraud, a "
            "model that always says no has 0.999: read recall and precision instead.",
            (Query(figure("ml_model_accuracy"), NAME),),
            "percentunit",
            maximum=1,
            decimals=2,
        ),
        Panel(
            "Recall, estimated and matured",
            "Estimated of decisions that are still young, from calibrated scores: it sees who "
            "comes, not new kinds of fraud. Far from the matured line for hours: a note.",
            (
                Query(
                    figure("ml_model_recall_estimated", f"{BY}, threshold", MODEL),
                    THRESHOLD + " estimated",
                ),
                Query(figure("ml_model_recall", f"{BY}, threshold"), THRESHOLD + " matured"),
            ),
            "percentunit",
            maximum=1,
        ),
    ),
)

SURE = Row(
    "How sure that is",
    (
        Panel(
            "Matured decisions, by outcome",
            "None: nobody reported one, so they count as good. Under 100 positives a recall of "
            "one half is not known to a tenth.",
            (
                Query(
                    f"sum by ({BY}, outcome) (ml_model_labels{{{MATURED}}})",
                    NAME + " {{outcome}}",
                ),
            ),
            "short",
        ),
        Panel(
            "Decisions with a report, however young",
            "Frauds are reported sooner than good payments: these come first, and figures of them "
            "are of what was reported, no more.",
            (
                Query(
                    f'sum by ({BY}, outcome) (ml_model_labels{{{LABELLED},outcome!="none"}})',
                    NAME + " {{outcome}}",
                ),
            ),
            "short",
        ),
        Panel(
            "Decisions that count, by their weight",
            "As many as they are worth (Kish): explored decisions stand for many blocked ones, "
            "and make intervals wide.",
            (
                Query(
                    f"sum by ({BY}) (ml_model_effective_observations{{{MATURED}}})",
                    NAME,
                ),
            ),
            "short",
        ),
        Panel(
            "Age of the last measurement",
            "Once a minute; a ticket from 5 minutes on. The log says why it stands still.",
            (
                Query(
                    f"time() - ml_quality_last_evaluation_timestamp_seconds{{{SERVER}}}",
                    "{{instance}}",
                ),
            ),
            "s",
            thresholds=steps((120, YELLOW), (300, RED)),
            width=12,
        ),
        Panel(
            "Duration of a measurement",
            "On one thread that takes what nobody else wants; long ones come seldom.",
            (
                Query(
                    f"ml_quality_evaluation_duration_seconds{{{SERVER}}}",
                    "{{instance}}",
                ),
            ),
            "s",
            thresholds=steps((10, YELLOW), (60, RED)),
            width=12,
        ),
    ),
)

COMING = Row(
    "Decisions and their outcomes",
    (
        Panel(
            "Outcomes, by what became of them",
            "Per second. matched: joined with a decision; unmatched: waits for one; duplicate, "
            "revised: said before; expired: of a time no longer kept; rejected: not usable.",
            (Query(rate("ml_feedback_outcomes_total", "result", SERVER), "{{result}}"),),
            "ops",
        ),
        Panel(
            "Labels, by version",
            "Per second, that decisions of each version got. None for days: a ticket.",
            (
                Query(
                    rate("ml_feedback_labels_total", "model, model_version, outcome"),
                    "{{model}} {{model_version}} {{outcome}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Outcomes that wait for a decision",
            "Reported under an id of which no decision is known. Rising without end: ids of "
            "another system, or of another server.",
            (Query(f"ml_feedback_outcomes_waiting{{{SERVER}}}", "{{instance}}"),),
            "short",
            thresholds=steps((100_000, YELLOW)),
        ),
        Panel(
            "Decisions recorded and dropped",
            "Per second. Dropped: a ring was full, the disk took nothing, or the plan that decided "
            "was forgotten; any makes a ticket. Scoring never waits for it.",
            (
                Query(rate("ml_feedback_records_total", where=SERVER), "recorded"),
                Query(
                    rate("ml_feedback_records_dropped_total", "reason", SERVER),
                    "dropped: {{reason}}",
                ),
            ),
            "rps",
        ),
        Panel(
            "Share of decisions recorded",
            "Of those under the lowest threshold; all others are. Under 1 with more traffic than "
            "feedback.records_per_s: figures weigh it back.",
            (
                Query(
                    f"min by (model, model_version) (ml_feedback_sampling_ratio{{{MODEL}}})",
                    "{{model}} {{model_version}}",
                ),
            ),
            "percentunit",
            thresholds=steps((0.1, GREEN), base=YELLOW),
            maximum=1,
        ),
        Panel(
            "Decisions on disk",
            "Bytes in use. At feedback.keep_bytes the oldest make room.",
            (Query(f"ml_feedback_records_bytes{{{SERVER}}}", "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "Age of the oldest decision",
            "How far back an outcome finds its decision. Shorter than outcomes take to come: "
            "raise feedback.keep_bytes or keep_days.",
            (
                Query(
                    f"time() - (ml_feedback_oldest_record_timestamp_seconds{{{SERVER}}} > 0)",
                    "{{instance}}",
                ),
            ),
            "s",
            width=12,
        ),
        Panel(
            "Drift score, beside",
            "What quality cannot say yet: matured decisions are weeks old, drift is of minutes. "
            "Warning from 0.1, retrain from 0.3.",
            (
                Query(
                    f"max by (model, model_version) (ml_data_drift_score{{{MODEL}}})",
                    "{{model}} {{model_version}}",
                ),
            ),
            "short",
            thresholds=steps((0.1, YELLOW), (0.3, RED)),
            maximum=1,
            width=12,
        ),
    ),
)

BOARD = Board(
    "quality",
    "Scoregate: quality",
    "What decisions came to, how sure that is, and whether outcomes come.",
    (FOUND, SURE, COMING),
)
