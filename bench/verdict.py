"""Whether a run may be believed: the sentences that speak against it.

Rules: numbers in, sentences out. Each says what was found, what is allowed, and what to do where
that is known. No sentence: the run is valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.hdr import Histogram
from bench.outcome import Limits, WrongAnswer


def _errors(found: Mapping[str, Any], limits: Limits) -> list[str]:
    statuses: dict[str, int] = found["status_counts"]
    transport: dict[str, int] = found["transport_errors"]
    failed = {k: n for k, n in statuses.items() if k != "OK"} | transport
    n_failed, n_all = sum(failed.values()), found["n_scheduled"]
    if n_failed == 0 or n_failed <= limits.max_error_share * n_all:
        return []
    causes = ", ".join(f"{n} {k}" for k, n in sorted(failed.items(), key=lambda x: -x[1]))
    first = f"; the first said {found['first_error']}" if found["first_error"] else ""
    said = f"{n_failed} of {n_all} calls failed ({causes}){first}"
    return [f"{said}; allowed: {limits.max_error_share:.4g} of all"]


def _answers(found: Mapping[str, Any]) -> list[str]:
    wrong: WrongAnswer | None = found["first_wrong"]
    if not found["n_wrong"] or wrong is None:
        return []
    said = f"{found['n_wrong']} of {found['n_checked']} checked answers are wrong"
    where = f"message {wrong.message_index} ({wrong.method}), {wrong.what}"
    return [f"{said}; the first: {where}: expected {wrong.expected}, got {wrong.got}"]


def _schedule(found: Mapping[str, Any], limits: Limits) -> list[str]:
    lag: Histogram = found["lag"]
    reasons = []
    p99_ms = lag.percentile(99) / 1e6
    if p99_ms > limits.max_lag_p99_ms:
        reasons.append(
            f"the generator could not keep its schedule: 99th percentile of its lag {p99_ms:.3g} "
            f"ms, allowed {limits.max_lag_p99_ms:g} ms; give it a core of its own or a lower rate"
        )
    share = found["n_late"] / max(found["n_sent"], 1)
    if share > limits.max_late_share:
        reasons.append(
            f"the generator could not keep its schedule: {share:.2%} of the calls were sent over "
            f"{limits.late_ms:g} ms late, allowed {limits.max_late_share:.2%}; give it a core of "
            "its own or a lower rate"
        )
    busy = found["generator_busy_share"]
    if found["mode"] == "open" and busy > limits.max_busy_share:
        reasons.append(
            f"the generator was busy {busy:.1%} of the time, allowed {limits.max_busy_share:.1%}: "
            "its own limit was measured; lower the rate"
        )
    return reasons


def _machine(found: Mapping[str, Any], limits: Limits) -> list[str]:
    reasons = []
    if found["n_stalls"]:
        reasons.append(
            f"the generator's loop stood still {found['n_stalls']} times, "
            f"{found['longest_stall_ns'] / 1e6:.0f} ms at the longest (allowed: "
            f"{limits.max_stall_ms:g} ms): the machine took its core away"
        )
    jump_ms = found["clock_jump_ns"] / 1e6
    if abs(jump_ms) > limits.max_clock_jump_ms:
        reasons.append(
            f"the wall clock jumped by {jump_ms:.0f} ms (allowed: {limits.max_clock_jump_ms:g} ms)"
        )
    return reasons


def reasons(
    found: Mapping[str, Any],
    limits: Limits,
    *,
    ended: str,
    give_up_s: float,
    n_connected: int,
    n_connections: int,
    granted_streams: int,
    n_streams: int,
) -> list[str]:
    """Return what speaks against a run.

    Parameters
    ----------
    found
        The fields of a LoadResult, but for `valid` and `invalid_reasons`.
    ended
        "done", "stopped" or "silent".
    n_connected, granted_streams
        Connections that were open when the run began; the fewest streams that a server allowed.
    """
    said = []
    if ended == "stopped":
        said.append("the run was stopped before its end")
    if ended == "silent":
        said.append(
            f"no call was answered for {give_up_s:g} s, so the run was ended; "
            "does the server serve this method?"
        )
    if found["n_scheduled"] == 0:
        said.append("no call was measured: the warm-up took the whole run")
    if n_connected < n_connections:
        said.append(f"only {n_connected} of {n_connections} connections could be opened")
    if granted_streams < n_streams:
        said.append(
            f"the server allows {granted_streams} streams per connection, {n_streams} were asked "
            "for; ask for fewer, or for more connections"
        )
    return (
        said
        + _errors(found, limits)
        + _answers(found)
        + _schedule(found, limits)
        + _machine(found, limits)
    )
