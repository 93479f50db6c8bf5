"""The replaying client's state in words: one line, or a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from server.demo.drift_words import Row, drift_line, drift_rows
from server.demo.exploring_words import exploring_line, exploring_rows
from server.demo.quality_words import quality_line, quality_rows


def line(state: dict[str, Any]) -> str:
    """Return the state as one line."""
    latency = state["recent_us"]
    decisions = ", ".join(f"{name} {n}" for name, n in sorted(state["decisions"].items()))
    fraud, caught = state.get("fraud", 0), state.get("caught", 0)
    failed = sum(state["errors"].values())
    if "pipeline" in state:
        features = f"degraded {state.get('degraded', 0)} (now {state['recent_degraded']})"
    else:
        features = f"fallbacks {state.get('fallback_calls', 0)}"
    learnt = f"{quality_line(state)}{exploring_line(state)}"
    return (
        f"{state['elapsed_s']:6.1f} s  {state['recent_calls_per_s']:.0f} calls/s  "
        f"p50 {_ms(latency, 'p50')}  p99 {_ms(latency, 'p99')}  p99.9 {_ms(latency, 'p99.9')} ms  "
        f"{_shares_now(state)}{decisions or 'no decisions yet'}  {features}  "
        f"fraud caught {caught}, missed {fraud - caught}{learnt}  errors {failed}"
        f"{drift_line(state)}"
    )


def table(state: dict[str, Any], process: str, *, live: bool) -> Table:
    """Lay out everything that the client has counted.

    Parameters
    ----------
    state : dict
        What the client has told.
    process : str
        A line on the store's process; empty: it has none.
    live : bool
        Whether the replay goes on.
    """
    out = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    out.add_column(style="bold", no_wrap=True)
    out.add_column()
    rows = [
        *_speed(state, live=live),
        *drift_rows(state, live=live),
        *_versions(state, live=live),
        *_decisions(state),
    ]
    stored = [*_features(state), *_store(state)]
    if live and "drift" in state:  # has to fit on a small screen: only what is not well
        stored = [row for row in stored if row[2]]
    rows += stored
    if process:
        rows.append(("", process, "" if " runs " in process else "yellow"))
    rows += [*_quality(state), *quality_rows(state, live=live)]
    rows += exploring_rows(state, live=live)
    for name, words, style in [*rows, _errors(state)]:
        out.add_row(name, Text(words, style=style))
    return out


def _ms(latencies_us: dict[str, float], name: str) -> str:
    return f"{latencies_us[name] / 1000:.2f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _speed(state: dict[str, Any], *, live: bool) -> Iterator[Row]:
    elapsed, sent = state["elapsed_s"], state["sent"]
    if live:
        calls = f"{state['recent_calls_per_s']:,.0f} a second now, {sent:,} in {elapsed:.0f} s"
    else:
        calls = f"{sent:,} in {elapsed:.1f} s, {sent / max(elapsed, 1e-9):,.0f} a second"
    if state["turn"] > 1:
        calls += f" (time {state['turn']} through the test week)"
    yield "calls", calls, ""
    for name, key in (("latency now", "recent_us"), ("latency", "latency_us")):
        if live or key == "latency_us":
            found = state[key]
            words = "  ".join(
                f"{part} {_ms(found, part)}" for part in ("p50", "p99", "p99.9", "max")
            )
            yield name, f"{words} ms", ""
    if state["behind_s"] > 0.5:
        words = f"the client is {state['behind_s']:.1f} s behind its schedule: lower --rate"
        yield "", words, "red"


def _shares_now(state: dict[str, Any]) -> str:
    """Return who answers now: "1.0 90%, 2.0 10%  "."""
    shares = [
        f"{found['version']} {found['recent_share']:.0%}"
        for found in state["versions"]
        if found["recent_share"]
    ]
    return f"{', '.join(shares)}  " if shares else ""


def _versions(state: dict[str, Any], *, live: bool) -> Iterator[Row]:
    """Say of every version which part it has, and how it does."""
    answered = state.get("answered", 0)
    for found in state["versions"]:
        n_calls, fraud = found["answered"], found["fraud"]
        now = f", now {found['recent_share']:.0%}" if live else ""
        words = (
            f"{n_calls:,} calls ({_share(n_calls, answered)}{now}) as {', '.join(found['arms'])}; "
            f"{_share(found['caught'], fraud)} of fraud caught, "
            f"{_share(found['false_alarms'], n_calls - fraud)} false alarms"
        )
        yield f"version {found['version']}", words, ""


def _decisions(state: dict[str, Any]) -> Iterator[Row]:
    answered, fraud = state.get("answered", 0), state.get("fraud", 0)
    parts = [f"{n} {c:,} ({_share(c, answered)})" for n, c in sorted(state["decisions"].items())]
    yield "decisions", "  ".join(parts) or "none yet", ""
    caught = state.get("caught", 0)
    words = (
        f"{caught:,} caught, {fraud - caught:,} missed of {fraud:,} "
        f"({_share(caught, fraud)} caught)"
    )
    yield "fraud", words, ""
    alarms = state.get("false_alarms", 0)
    share = _share(alarms, answered - fraud)
    yield "false alarms", f"{alarms:,} ({share} of genuine transactions)", ""


def _features(state: dict[str, Any]) -> Iterator[Row]:
    """Where feature values came from, and how many answers had to do with less."""
    sources = state["sources"]
    if "pipeline" not in state:
        words = (
            f"{state.get('fallback_calls', 0):,} calls, {sources.get('default', 0):,} features "
            f"by default (sent incomplete: {state['incomplete']:,}; named: {state['named']:,})"
        )
        yield "fallbacks", words, ""
        return
    stored = {name: sources.get(name, 0) for name in ("online", "batch", "default")}
    total = sum(stored.values())
    shares = "  ".join(f"{name} {_share(count, total)}" for name, count in stored.items())
    words = f"{shares}  of {total:,} stored; {sources.get('request', 0):,} from the requests"
    yield "features", words, ""
    degraded, now = state.get("degraded", 0), state["recent_degraded"]
    words = f"{degraded:,} answers ({_share(degraded, state.get('answered', 0))}), now {now:,}"
    yield "degraded", words, "yellow" if now else ""


def _store(state: dict[str, Any]) -> Iterator[Row]:
    """How the server sees its tables, and how the pipeline gets on."""
    if "pipeline" not in state:
        return
    stores = [
        f"{store['table']} {store['group'] or store['kind']} {store['state']}"
        + (f" ({store['detail']})" if store["detail"] else "")
        for store in state["stores"]
    ]
    well = stores and all(store["state"] == "ok" for store in state["stores"])
    yield "store", ", ".join(stores) or "the server does not say", "" if well else "yellow"
    pipeline = state["pipeline"]
    words = f"{pipeline['written']:,} records written, {pipeline['waiting']:,} wait"
    if pipeline["error"]:
        words += f": {pipeline['error']}"
    yield "pipeline", words, "yellow" if pipeline["error"] else ""


def _quality(state: dict[str, Any]) -> Iterator[Row]:
    """How the served scores rank frauds, beside the offline scores of the same rows."""
    served, offline = state["quality"], state["offline_quality"]
    if served:
        words = (
            f"AUC {served['auc']:.4f} (offline, same rows: {offline['auc']:.4f}), "
            f"average precision {served['average_precision']:.4f} "
            f"({offline['average_precision']:.4f})"
        )
        yield "quality", words, ""
    n_faulty = state["faulty"].get("answered", 0)
    same, answered = state.get("as_offline", 0), state.get("answered", 0) - n_faulty
    share = _share(same, answered)
    words = f"{same:,} of {answered:,} scores ({share}) are the offline ones bit for bit"
    yield "", words + (", before the fault" if n_faulty else ""), ""


def _errors(state: dict[str, Any]) -> Row:
    failed = sum(state["errors"].values())
    if not failed:
        return "errors", "none", ""
    kinds = ", ".join(f"{name} {n}" for name, n in sorted(state["errors"].items()))
    return "errors", f"{failed:,}: {kinds}; the first: {state['first_error']}", "red"
