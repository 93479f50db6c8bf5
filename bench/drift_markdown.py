"""The figures of `bench.drift_tables` as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.drift_null import WINDOWS_A_DAY, theory


def markdown(found: dict[str, Any]) -> str:
    """Return the tables of the sections that there are."""
    parts = [write(found[name]) for name, write in WRITERS.items() if found.get(name)]
    where = found.get("machine", {})
    parts.append(
        f"Measured on {where.get('processor', '?')}, {where.get('cores', '?')} cores, "
        f"{where.get('system', '?')}."
    )
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _percent(share: float) -> str:
    if not share:
        return "0"
    return f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def _alarms(rate: dict[str, Any]) -> str:
    return f"{_percent(rate['rate'])} (<= {_percent(rate['bound'])})"


def _days(rate: dict[str, Any]) -> str:
    least = rate["days_between_at_least"]
    if rate["days_between"] is None:
        return f">= {least:.2g}"
    return f"{rate['days_between']:.2g} (>= {least:.2g})"


def _null(rows: list[dict[str, Any]]) -> str:
    text = (
        "### False alarms where nothing has drifted\n\n"
        f"{rows[0]['repetitions']:,} repetitions a cell, each with a fresh reference of 10,000 "
        "rows and a fresh window. In brackets the exact 99 % upper bound. Days between alarms with "
        'one independent window every ten minutes. "Any test": some part of the score is not 0, '
        'promised is at most .1 %. "Usual": the mean of 1 - p, alert over 0.3. Windows of under '
        "600 rows are shown for comparison; the monitor calls them warming.\n\n"
    )
    return text + _table(
        (
            "n",
            "features",
            "correlation",
            "critical D",
            "any test",
            "warning (>= .1)",
            "days between warnings",
            "by theory at least",
            "usual: alerts",
            "usual: days between",
        ),
        (
            (
                f"{r['n']:,}",
                str(r["features"]),
                f"{r['correlation']:g}",
                f"{r['critical']:.4f}",
                _alarms(r["any_test"]),
                _alarms(r["warning"]),
                _days(r["warning"]),
                f"{1 / (theory(r['n'], r['features'], r['critical']) * WINDOWS_A_DAY):,.0f}",
                _percent(r["usual"]["rate"]),
                _days(r["usual"]),
            )
            for r in rows
        ),
    )


def _power(rows: list[dict[str, Any]]) -> str:
    text = (
        "### Power: one of 30 features moves\n\n"
        f"{rows[0]['repetitions']:,} windows a row; the shift is in standard deviations of a "
        'normal feature. "By the mean": how often the mean of 30 scores would reach the limit.\n\n'
    )
    return text + _table(
        ("shift", "n", "true D", "median D", "significant", "warning", "by the mean"),
        (
            (
                f"{r['shift']:g}",
                f"{r['n']:,}",
                f"{r['expected_distance']:.3f}",
                f"{r['median_distance']:.3f}",
                _percent(r["found"]),
                _percent(r["warned"]),
                _percent(r["mean_warned"]),
            )
            for r in rows
        ),
    )


def _delay(rows: list[dict[str, Any]]) -> str:
    text = (
        "### Delay: rows from the change to the first warning\n\n"
        f"One of 30 features moves at once; the window slides by {rows[0]['hop']} rows; "
        f"{rows[0]['repetitions']:,} streams a row. The rule of thumb is .1 n / D + hop.\n\n"
    )
    return text + _table(
        ("shift", "n", "median", "nine in ten within", "rule of thumb"),
        (
            (
                f"{r['shift']:g}",
                f"{r['n']:,}",
                "never" if r["median"] is None else f"{r['median']:,}",
                "never" if r["late"] is None else f"{r['late']:,}",
                f"{r['formula']:,.0f}",
            )
            for r in rows
        ),
    )


def _clusters(rows: list[dict[str, Any]]) -> str:
    text = (
        "### Rows in clusters\n\n"
        f"Windows of 1,000 rows, 10 features, nothing drifts; {rows[0]['repetitions']:,} "
        "repetitions. The design effect is estimated from the reference's clusters.\n\n"
    )
    return text + _table(
        (
            "rows a cluster",
            "correlation within",
            "design effect",
            "any test",
            "with the effect",
            "warning",
            "with the effect",
        ),
        (
            (
                str(r["cluster_rows"]),
                f"{r['correlation_within']:g}",
                f"{r['design_effect']:.1f}",
                _alarms(r["any_test"]),
                _alarms(r["any_test_corrected"]),
                _alarms(r["warning"]),
                _alarms(r["warning_corrected"]),
            )
            for r in rows
        ),
    )


def _handbook(found: dict[str, Any]) -> str:
    weeks, faults, few = found["weeks"], found["faults"], found["customers"]
    text = (
        "### Untouched weeks of the handbook\n\n"
        "Each of five weeks against the week before it; windows share no row. States are of "
        "evaluations every 200 rows.\n\n"
    )
    text += _table(
        (
            "window",
            "night and weekend are",
            "windows",
            "warning",
            "two in a row over .3",
            "usual: alerts",
            "states",
        ),
        (
            (
                f"{r['window']:,}",
                r["calendar"],
                str(r["windows"]),
                _percent(r["warned"]),
                _percent(r["high_pairs"]),
                _percent(r["usual"]),
                ", ".join(f"{k} {v:,}" for k, v in sorted(r["states"].items())),
            )
            for r in weeks
        ),
    )
    text += (
        f"\nWindows of the whole week of {few['customers']} customers ({few['rows']:.0f} rows) "
        f"against all customers of that week, {few['repetitions']} times: warning in "
        f"{_percent(few['warned'])} of windows, and in {_percent(few['warned_corrected'])} with "
        f"the largest design effect set ({few['largest_design_effect']:.1f}; the features' median "
        f"is {few['median_design_effect']:.1f}).\n"
    )
    text += (
        "\n### Faults put into the handbook's weeks\n\n"
        "Two healthy days, then three with the fault; default settings, evaluated every 200 rows. "
        "Rows are counted from the fault. The last column is the usual recipe's score (alert over "
        ".3) of the last window before and of the last one.\n\n"
    )
    return text + _table(
        (
            "fault",
            "states before",
            "warning after",
            "broken after",
            "retrain after",
            "state after three days",
            "score",
            "first reason",
            "usual before, after",
        ),
        (
            (
                r["fault"],
                ", ".join(f"{k} {v}" for k, v in r["before"].items()),
                *(
                    f"{r['rows_to'][k]:,}" if k in r["rows_to"] else "-"
                    for k in ("warning", "broken", "retrain")
                ),
                r["last_state"],
                f"{r['last_score']:.2f}",
                r["named"] or "-",
                "{:.2f}, {:.2f}".format(*r["usual_before_and_after"]),
            )
            for r in faults
        ),
    )


def _cost(found: dict[str, Any]) -> str:
    text = f"### Cost\n\n{found['features']} continuous features; CPU of one core.\n\n"
    names = (
        ("one evaluation, ms", "evaluate_ms", "{:.1f}"),
        ("observe, microseconds a row", "observe_us_per_row", "{:.2f}"),
        ("memory of windows and reference, MB", "memory_mb", "{:.1f}"),
        ("kept windows, MB", "kept_mb", "{:.2f}"),
        ("to_bytes, ms", "to_bytes_ms", "{:.0f}"),
        ("restore, ms", "restore_ms", "{:.0f}"),
    )
    return text + _table(
        ("", "window 2,000", "window 5,000"),
        (
            (label, *(form.format(found[f"{key}_{n}"]) for n in (2000, 5000)))
            for label, key, form in names
        ),
    )


WRITERS: dict[str, Callable[[Any], str]] = {
    "null": _null,
    "power": _power,
    "delay": _delay,
    "clusters": _clusters,
    "handbook": _handbook,
    "cost": _cost,
}
