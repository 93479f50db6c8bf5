"""Where feature values come from, and how their stores are."""

from __future__ import annotations

from panels import (
    GREEN,
    RED,
    SERVER,
    YELLOW,
    Board,
    Panel,
    Query,
    Row,
    quantile,
    rate,
    shares,
    steps,
)

RATE = "[$__rate_interval]"
READ = "scoregate_feature_read_duration_seconds"
UP = ((0, "down", RED), (0.5, "partly", YELLOW), (1, "well", GREEN))
BREAKER = ((0, "closed", GREEN), (1, "tries", YELLOW), (2, "open", RED))
LINK = ((0, "no", RED), (1, "yes", GREEN))


def reads(table: str) -> str:
    """Return how reads of a table ended; what did not happen is left out."""
    where = f'{SERVER},table="{table}"'
    return rate("scoregate_feature_reads_total", "outcome", where) + " > 0"


def counter(name: str) -> str:
    """Return the rate of a counter of the store, over all servers."""
    return rate(name, where=SERVER)


VALUES = Row(
    "Values",
    (
        Panel(
            "Values by where they came from",
            "Share of all values: from the request, the online record, the batch record, or the "
            "default. online falling while batch and default rise: the online store or its "
            "writers fail.",
            (
                Query(
                    shares("ml_feature_values_total", "source"),
                    "{{source}}",
                ),
            ),
            "percentunit",
            stacked=True,
            maximum=1,
        ),
        Panel(
            "Values that fell back, by group",
            "Per second: values that came from the batch record or the default because the "
            "group's own record was not usable. Some groups always have a few; a step is what "
            "matters.",
            (
                Query(
                    rate("ml_feature_fallbacks_total", "group, source"),
                    "{{group}} from {{source}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Degraded answers",
            "Share of answers for which more features fell back than the schema tolerates; "
            "callers are told so. A ticket over 5 % for 10 minutes.",
            (
                Query(
                    rate("ml_predictions_degraded_total", "model")
                    + " / "
                    + rate("ml_predictions_total", "model"),
                    "{{model}}",
                ),
            ),
            "percentunit",
            thresholds=steps((0.01, YELLOW), (0.05, RED)),
        ),
        Panel(
            "Values of requests that could not be used",
            "Per second, by cause: absent and null were not sent; infinite, range and unseen "
            "were, but not as the schema has it. A step usually is a caller's release.",
            (Query(rate("ml_feature_missing_total", "cause"), "{{cause}}"),),
            "ops",
            width=12,
        ),
        Panel(
            "Share of values that fell back, by group",
            "As the alert ScoregateFallbackSurge has it, over 10 minutes: it fires at 5 points "
            "above the last day.",
            (
                Query(
                    'job:ml_feature_fallbacks:ratio_rate10m{job="$job",model=~"$model"}',
                    "{{model}} {{group}}",
                ),
            ),
            "percentunit",
            thresholds=steps((0.05, YELLOW)),
            width=12,
        ),
    ),
)

READS = Row(
    "Reads",
    (
        Panel(
            "Reads of online records, by how they ended",
            "Records per second. hit is good, absent means an entity that is not there; the "
            "runbook feature-stores.md says what the others mean.",
            (
                Query(
                    reads("online"),
                    "{{outcome}}",
                ),
            ),
            "rps",
        ),
        Panel(
            "Reads of batch records, by how they ended",
            "Looked at only where the online record left something open.",
            (
                Query(
                    reads("batch"),
                    "{{outcome}}",
                ),
            ),
            "rps",
        ),
        Panel(
            "Duration of an online read",
            "Compare with the group's read_budget_us (5 ms unless the schema says otherwise): "
            "what takes longer falls back. Of a store that answers at once, one read in 64 is "
            "timed.",
            tuple(
                Query(
                    quantile(share, READ, where=SERVER),
                    f"p{100 * share:g}",
                )
                for share in (0.5, 0.99, 0.999)
            ),
            "s",
            thresholds=steps((0.002, YELLOW), (0.005, RED)),
        ),
        Panel(
            "Rows that waited",
            "Rows per second that waited for the online store; the loop went on meanwhile. 0 with "
            "LMDB, which answers at once.",
            (Query(counter("scoregate_feature_waits_total"), "rows"),),
            "rps",
            width=12,
        ),
        Panel(
            "Cache of records",
            "Share of reads that the cache in the server answered (redis.cache_bytes); empty "
            "without one.",
            (
                Query(
                    f"{counter('scoregate_store_cache_hits_total')} / ("
                    f"{counter('scoregate_store_cache_hits_total')}"
                    f" + {counter('scoregate_store_cache_misses_total')})",
                    "hits",
                ),
            ),
            "percentunit",
            maximum=1,
            width=12,
        ),
    ),
)

STORES = Row(
    "Stores",
    (
        Panel(
            "Tables",
            "well: fine; partly: some loops or files fail; down: every read falls back. scoregate "
            "status says why, with the last error.",
            (
                Query(
                    f"scoregate_store_up{{{SERVER}}}", "{{instance}} {{table}} {{kind}} {{group}}"
                ),
            ),
            "short",
            kind="state-timeline",
            thresholds=steps((0.5, YELLOW), (1, GREEN), base=RED),
            mappings=UP,
        ),
        Panel(
            "Circuit breaker of each loop",
            "Open: too many reads failed or came late, so features fall back without asking; it "
            "tries one read now and then and closes by itself.",
            (Query(f"scoregate_store_breaker_state{{{SERVER}}}", "{{instance}} loop {{loop}}"),),
            "short",
            kind="state-timeline",
            thresholds=steps((1, YELLOW), (2, RED)),
            mappings=BREAKER,
        ),
        Panel(
            "Connection of each loop",
            "Whether the connection to the online store stands (Redis).",
            (Query(f"scoregate_store_connected{{{SERVER}}}", "{{instance}} loop {{loop}}"),),
            "short",
            kind="state-timeline",
            thresholds=steps((1, GREEN), base=RED),
            mappings=LINK,
        ),
        Panel(
            "Errors of the online store, by cause",
            "Per second; the runbook has a line for each cause.",
            (
                Query(
                    rate("scoregate_store_errors_total", "cause", SERVER),
                    "{{cause}}",
                ),
            ),
            "ops",
            thresholds=steps((1, RED)),
        ),
        Panel(
            "Connections that failed, and came to stand",
            "Per second, failures by cause: auth and database are settings, timeout and closed "
            "the network or the server.",
            (
                Query(
                    rate("scoregate_store_connect_failures_total", "cause", SERVER),
                    "{{cause}}",
                ),
                Query(counter("scoregate_store_connects_total"), "stood"),
            ),
            "ops",
            thresholds=steps((1, RED)),
        ),
        Panel(
            "Late answers, breaker openings, replica",
            "Per second: answers after their time-out, breakers that opened, reads that the "
            "replica was asked too (hedged), that it answered first (won), that it alone was "
            "asked (failover).",
            (
                Query(counter("scoregate_store_late_replies_total"), "late"),
                Query(counter("scoregate_store_breaker_openings_total"), "breaker opened"),
                Query(counter("scoregate_store_hedged_reads_total"), "hedged"),
                Query(counter("scoregate_store_hedge_wins_total"), "won"),
                Query(counter("scoregate_store_failovers_total"), "failover"),
            ),
            "ops",
        ),
        Panel(
            "Records of batch tables",
            "Records of the generation that serves. A step is a new load; a fall may be a load "
            "that failed half-way: scoregate features rollback GROUP goes back.",
            (Query(f"scoregate_batch_table_records{{{SERVER}}}", "{{instance}} {{group}}"),),
            "short",
            width=12,
        ),
        Panel(
            "Generations of batch tables",
            "Which generation each server serves; a name begins with the UTC time of its load.",
            (Query(f"scoregate_batch_table_info{{{SERVER}}}"),),
            "short",
            kind="table",
            width=12,
            hidden=("Value",),
        ),
    ),
)

BOARD = Board(
    "features",
    "Scoregate: features",
    "Where feature values come from, how reads of stored records end, and the stores.",
    (VALUES, READS, STORES),
)
