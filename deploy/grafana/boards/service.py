"""Whether it is up, callers are served, how fast, and at what cost."""

from __future__ import annotations

from panels import RED, SERVER, YELLOW, Board, Panel, Query, Row, quantile, rate, steps

RATE = "[$__rate_interval]"
CALLER = (
    "CANCELLED|INVALID_ARGUMENT|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|OUT_OF_RANGE"
    "|UNIMPLEMENTED|UNAUTHENTICATED"
)
OURS = f'{SERVER},code!~"{CALLER}"'
THEIRS = f'{SERVER},code=~"{CALLER}"'
BURN = steps((1, YELLOW), (6, RED))
DURATION = "ml_prediction_duration_seconds"


def burn(window: str, slo: str) -> str:
    """Return how many times faster than allowed an error budget is used up."""
    return (
        f'job:scoregate_slo_errors:ratio_rate{window}{{job="$job",slo="{slo}"}}'
        " / on (slo) group_left () scoregate:slo_error_budget:ratio"
    )


NOW = Row(
    "Now",
    (
        Panel(
            "Servers with a model",
            "Servers that Prometheus can scrape and that serve at least one model, of all it "
            "knows.",
            (
                Query(f"count(count by (instance) (ml_model_info{{{SERVER}}}))", "serving"),
                Query(f"count(up{{{SERVER}}})", "known"),
            ),
            "short",
            kind="stat",
            thresholds=steps((1, "green"), base=RED),
            width=5,
            height=5,
        ),
        Panel(
            "Answers",
            "Score calls answered with a decision, per second.",
            (Query(rate("ml_predictions_total")),),
            "reqps",
            kind="stat",
            width=5,
            height=5,
        ),
        Panel(
            "Failed calls",
            "Share of calls that failed through no fault of the caller, over 5 minutes. The "
            "objective allows 0.1 %; from 1.44 % on, somebody is paged if it lasts.",
            (Query('job:scoregate_slo_errors:ratio_rate5m{job="$job",slo="availability"}'),),
            "percentunit",
            kind="stat",
            thresholds=steps((0.001, YELLOW), (0.0144, RED)),
            width=5,
            height=5,
            decimals=3,
        ),
        Panel(
            "99 of 100 answers within",
            "The 99th percentile of all models, from complete message to encoded response; read "
            "from histogram buckets, so exact only at their bounds.",
            (Query(quantile(0.99, DURATION)),),
            "s",
            kind="stat",
            thresholds=steps((0.005, YELLOW), (0.01, RED)),
            width=5,
            height=5,
        ),
        Panel(
            "Alerts that fire",
            "Alerts of deploy/prometheus/rules, by severity: page wakes somebody, ticket waits "
            "for working hours. None firing: 0.",
            (
                Query(
                    'count(ALERTS{alertname=~"Scoregate.*",alertstate="firing",severity=~"page|ticket"})'
                    " or vector(0)"
                ),
            ),
            "short",
            kind="stat",
            thresholds=steps((1, RED)),
            width=4,
            height=5,
        ),
    ),
)

CALLS = Row(
    "Calls",
    (
        Panel(
            "Answers by model",
            "Score calls answered with a decision, per second. A sudden 0 while servers are up "
            "means that callers do not get here.",
            (Query(rate("ml_predictions_total", "model"), "{{model}}"),),
            "reqps",
        ),
        Panel(
            "Calls that failed, by code",
            "Ours: they use up the error budget. FAILED_PRECONDITION: too many features fell "
            "back, or a layout is gone; DEADLINE_EXCEEDED: answered too late. The runbook "
            "errors-and-latency.md has the table.",
            (
                Query(
                    rate("ml_prediction_errors_total", "code", OURS),
                    "{{code}}",
                ),
            ),
            "reqps",
            thresholds=steps((1, RED)),
        ),
        Panel(
            "Calls that callers got wrong or gave up",
            "Not counted against us, but look: a change of ours may be behind it. CANCELLED: "
            "callers gave up waiting.",
            (
                Query(
                    rate("ml_prediction_errors_total", "code", THEIRS),
                    "{{code}}",
                ),
            ),
            "reqps",
            thresholds=steps((10, YELLOW)),
        ),
        Panel(
            "Error budget: failed calls",
            "How many times faster than allowed the budget of failed calls is used up. 1 for 30 "
            "days uses it exactly; pages: 14.4 over 1 h and 5 m, 6 over 6 h and 30 m; ticket: 1 "
            "over 3 d.",
            tuple(Query(burn(w, "availability"), w) for w in ("5m", "1h", "6h", "3d")),
            "short",
            thresholds=BURN,
            width=12,
        ),
        Panel(
            "Error budget: slow answers",
            "The same for answers that took over 10 ms.",
            tuple(Query(burn(w, "latency"), w) for w in ("5m", "1h", "6h", "3d")),
            "short",
            thresholds=BURN,
            width=12,
        ),
        Panel(
            "All gRPC calls, by code",
            "What the transport answered, beyond Score: GetModel, health checks, and calls that "
            "never reached a model, such as messages over the limit.",
            (
                Query(
                    rate("scoregate_grpc_calls_total", "code", SERVER) + " > 0",
                    "{{code}}",
                ),
            ),
            "reqps",
            width=12,
        ),
        Panel(
            "Rows per batch",
            "Rows that became ready in the same turn of a loop are scored together; batching adds "
            "no waiting. It grows with load, which is good.",
            (
                Query(
                    rate("scoregate_batch_rows_total", "instance", SERVER)
                    + " / "
                    + rate("scoregate_batches_total", "instance", SERVER),
                    "{{instance}}",
                ),
            ),
            "short",
            width=12,
        ),
    ),
)

LATENCY = Row(
    "Latency, from complete message to encoded response",
    (
        Panel(
            "Percentiles by model",
            "Half, 99 % and 99.9 % of the answers are faster. Read from buckets: exact only at "
            "their bounds (50 µs, 100 µs, 250 µs, 500 µs, 1 ms …).",
            tuple(
                Query(quantile(share, DURATION, "model"), f"{{{{model}}}} p{100 * share:g}")
                for share in (0.5, 0.99, 0.999)
            ),
            "s",
            thresholds=steps((0.005, YELLOW), (0.01, RED)),
        ),
        Panel(
            "How answers are spread",
            "Darker: more answers took that long. Two bands mean two kinds of calls, such as with "
            "and without a wait for the store.",
            (Query(rate(f"{DURATION}_bucket", "le"), "{{le}}"),),
            "s",
            kind="heatmap",
        ),
        Panel(
            "Wait for scoring",
            "From the turn that brought a call, or the last of its stored records, to the start of "
            "scoring: half, 99 % and 99.9 % waited less. Rising with load: a loop has too much.",
            tuple(
                Query(
                    quantile(share, "scoregate_queue_delay_seconds", where=SERVER),
                    f"p{100 * share:g}",
                )
                for share in (0.5, 0.99, 0.999)
            ),
            "s",
            thresholds=steps((0.001, YELLOW), (0.005, RED)),
        ),
        Panel(
            "Stages, 99th percentile",
            "Where a call's time goes: parse, features (waiting for stores included), route, "
            "score, encode.",
            (
                Query(
                    quantile(0.99, "scoregate_stage_duration_seconds", "stage", SERVER),
                    "{{stage}}",
                ),
            ),
            "s",
            thresholds=steps((0.005, YELLOW), (0.01, RED)),
            width=12,
        ),
        Panel(
            "Stages, mean",
            "The same, on average, one upon the other: what a row takes in all. Without stores to "
            "wait for it is the loop's work. Under 100 ns a stage is mostly the clock.",
            (
                Query(
                    rate("scoregate_stage_duration_seconds_sum", "stage", SERVER)
                    + " / "
                    + rate("scoregate_stage_duration_seconds_count", "stage", SERVER),
                    "{{stage}}",
                ),
            ),
            "s",
            stacked=True,
            width=12,
        ),
    ),
)

MACHINE = Row(
    "Loops and process",
    (
        Panel(
            "Loops, share of time busy",
            "A loop thread near 1 queues: add loops where cores are free, else servers. One full "
            "beside idle ones: few connections carry the load.",
            (Query(f"scoregate_loop_busy_ratio{{{SERVER}}}", "{{instance}} loop {{loop}}"),),
            "percentunit",
            thresholds=steps((0.7, YELLOW), (0.9, RED)),
            maximum=1,
        ),
        Panel(
            "One turn of a loop, 99th percentile",
            "What a call that arrives now waits for before it is looked at.",
            (
                Query(
                    quantile(0.99, "scoregate_loop_iteration_seconds", "instance", SERVER),
                    "{{instance}}",
                ),
            ),
            "s",
            thresholds=steps((0.001, YELLOW), (0.005, RED)),
        ),
        Panel(
            "Wake-ups of loops",
            "Turns per second. Far fewer than calls means that many calls share a turn.",
            (
                Query(
                    f"rate(scoregate_loop_iterations_total{{{SERVER}}}{RATE})",
                    "{{instance}} loop {{loop}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Open connections",
            "At the fast door, by loop. A new connection goes to the loop with the fewest.",
            (Query(f"scoregate_open_connections{{{SERVER}}}", "{{instance}} loop {{loop}}"),),
            "short",
            thresholds=steps((8000, YELLOW)),
        ),
        Panel(
            "New connections",
            "Per second. Clients that connect anew for every call pay more for that than for the "
            "call.",
            (
                Query(
                    rate("scoregate_connections_accepted_total", "instance", SERVER),
                    "{{instance}}",
                ),
            ),
            "cps",
            thresholds=steps((100, YELLOW)),
        ),
        Panel(
            "Traffic",
            "Bytes per second at the fast door.",
            (
                Query(rate("scoregate_received_bytes_total", where=SERVER), "received"),
                Query(rate("scoregate_sent_bytes_total", where=SERVER), "sent"),
            ),
            "Bps",
        ),
        Panel(
            "CPU",
            "Cores that each server's process uses, loops and background threads together.",
            (Query(f"rate(process_cpu_seconds_total{{{SERVER}}}{RATE})", "{{instance}}"),),
            "short",
        ),
        Panel(
            "Memory",
            "Resident memory of each server. About 100 MB, models and caches come on top; steady "
            "growth is a fault.",
            (Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}"),),
            "bytes",
            thresholds=steps((1 << 30, YELLOW)),
        ),
        Panel(
            "Open files, share of the limit",
            "Connections and stores count. At 1 nobody can connect: raise the limit of open files.",
            (Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}"),),
            "percentunit",
            thresholds=steps((0.7, YELLOW), (0.9, RED)),
            maximum=1,
        ),
    ),
)

BOARD = Board(
    "service",
    "Scoregate: service",
    "Calls, errors, latency, loops and the process. Begin here.",
    (NOW, CALLS, LATENCY, MACHINE),
)
