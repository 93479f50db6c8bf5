"""Drift in words: what is injected, what the server makes of it, and what has just happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.demo.faults import FAULTS

ALERT_STYLES = {True: "red", False: "yellow"}
STYLES = {"stable": "green", "warning": "yellow", "retrain": "red", "broken": "red"}
Row = tuple[str, str, str]  # name, words, style


def drift_rows(state: dict[str, Any], *, live: bool) -> Iterator[Row]:
    """Yield lines of the summary's table; of alerts only, where the demo is not about drift."""
    yield from _alerts(state)
    drift = state.get("drift")
    if drift is None:
        return
    yield "injected", _injected(drift, state["elapsed_s"], live=live), ""
    if faulty := state["faulty"]:
        fraud, answered = faulty["fraud"], faulty["answered"]
        words = (
            f"{answered:,} answers with it: {_share(faulty['caught'], fraud)} of fraud caught, "
            f"{_share(faulty['false_alarms'], answered - fraud)} false alarms"
        )
        yield "", words, ""
    for found in drift["versions"]:
        name = f"drift of {found['version']}"
        yield name, f"{_verdict(found)}{_top(found)}", STYLES.get(found["state"], "")
        # One says why; what else moved is in the report.
        if found["reason"] and found["state"] != "stable":
            yield "", found["reason"], ""
        if live:  # what has happened was printed above
            continue
        states = [
            f"{change['state']} at {change['at_s']:.1f} s"
            for change in drift["changes"]
            if change["version"] == found["version"]
        ]
        yield "", ", ".join(states[-4:]), ""
    if drift["trouble"]:
        yield "", f"the control port does not say: {drift['trouble']}", "yellow"


def drift_line(state: dict[str, Any]) -> str:
    """Return what stands at the end of a plain line: "  drift 1.0 retrain, score 0.97 ..."."""
    drift = state.get("drift")
    if drift is None:
        return ""
    return "".join(
        f"  drift {found['version']} {_verdict(found)}{_top(found, most=1)}"
        for found in drift["versions"]
    )


def drift_news(state: dict[str, Any]) -> list[str]:
    """Return everything that has happened, a line each; later states have the same and more."""
    return [*_changes(state), *(f"  alert {name} is {how}" for name, how in state["alerts"])]


def _changes(state: dict[str, Any]) -> list[str]:
    """Return when the fault began and when states changed, by time."""
    drift = state.get("drift")
    if drift is None:
        return []
    lines = [
        (
            change["at_s"],
            f"drift of {change['version']}: {_step(change)}",
        )
        for change in drift["changes"]
    ]
    if drift["is_begun"]:
        lines.append((drift["after_s"], f"from now on, {FAULTS[drift['kind']].words}"))
    return [f"  {at_s:5.1f} s  {words}" for at_s, words in sorted(lines)]


def _step(change: dict[str, Any]) -> str:
    """Return "stable -> warning (TX_AMOUNT: ...)"."""
    states = " -> ".join(filter(None, (change["before"], change["state"])))
    calm = change["state"] in ("warming", "stable") or not change["reason"]
    return states if calm else f"{states} ({change['reason']})"


def _alerts(state: dict[str, Any]) -> Iterator[Row]:
    """Say which alerts Prometheus has; nothing where the demo runs none."""
    if state["alerts"]:
        words = ", ".join(f"{name} {how}" for name, how in state["alerts"])
        firing = any(how == "firing" for _, how in state["alerts"])
        yield "alerts", words, ALERT_STYLES[firing]


def _injected(drift: dict[str, Any], elapsed_s: float, *, live: bool) -> str:
    fault = FAULTS[drift["kind"]]
    if not fault.feature:
        return "nothing"
    if drift["is_begun"]:
        return f"{fault.words}, since {drift['after_s']:.1f} s"
    left_s = max(0.0, drift["after_s"] - elapsed_s)
    return f"in {left_s:.0f} s: {fault.words}" if live else "nothing yet: it ended too soon"


def _verdict(found: dict[str, Any]) -> str:
    score = found["score"]
    return str(found["state"]) if score is None else f"{found['state']}, score {score:.2f}"


def _top(found: dict[str, Any], *, most: int = 3) -> str:
    """Return the features that have drifted, the furthest first: ": TX_AMOUNT 0.97"."""
    top = [f"{name} {score:.2f}" for name, score in found["top"] if score >= found["warn"]]
    return f": {', '.join(top[:most])}" if top else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
