"""What a run is measured by: every name that a scenario, a result or a comparison may use.

A name that is not here is a typing error in a scenario, and is said to be one. `better` is the
direction in which a change is an improvement; `None` is for circumstances (an offered rate), which
are shown and never judged.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Better = Literal["lower", "higher"]


class Quantity(NamedTuple):
    """One measured thing."""

    unit: str
    better: Better | None
    about: str


QUANTITIES: dict[str, Quantity] = {
    "cpu_us_per_call": Quantity("µs", "lower", "server CPU, user and system, per answered call"),
    "calls_per_s": Quantity("1/s", "higher", "calls answered OK per second"),
    "offered_per_s": Quantity("1/s", None, "calls per second that the schedule asked for"),
    "calls_per_cpu_s": Quantity("1/s", "higher", "answered calls per second of server CPU"),
    "busy_share": Quantity("", None, "share of one core that the server used"),
    "p50_us": Quantity("µs", "lower", "median latency from the intended send time"),
    "p90_us": Quantity("µs", "lower", "90th percentile of latency"),
    "p99_us": Quantity("µs", "lower", "99th percentile of latency"),
    "p999_us": Quantity("µs", "lower", "99.9th percentile of latency"),
    "p9999_us": Quantity("µs", "lower", "99.99th percentile of latency"),
    "max_us": Quantity("µs", "lower", "largest latency"),
    "mean_us": Quantity("µs", "lower", "mean latency"),
    "lag_p99_us": Quantity("µs", None, "99th percentile of the generator's own lateness"),
    "n_errors": Quantity("", "lower", "calls that did not end OK"),
    "error_share": Quantity("", "lower", "share of calls that did not end OK"),
    "n_wrong": Quantity("", "lower", "answers that differ from the expected ones"),
    "rss_before_bytes": Quantity("B", "lower", "server's resident memory before the load"),
    "rss_after_bytes": Quantity("B", "lower", "server's resident memory after the load"),
    "rss_growth_share": Quantity("", "lower", "growth of resident memory over the last 2/3"),
    "rss_slope_bytes_per_s": Quantity("B/s", "lower", "slope of resident memory, last 2/3"),
    "capacity_per_s": Quantity("1/s", "higher", "what the server takes of open callers"),
    "knee_per_s": Quantity("1/s", "higher", "highest rate kept within the latency limit"),
    "generator_bound": Quantity("", None, "1 where the generator ended a sweep, not the server"),
    "read_us": Quantity("µs", "lower", "one timed read of a stored record, inside the server"),
    "generator_cpu_us_per_call": Quantity("µs", "lower", "the load generator's own CPU per call"),
}

# Whole names of latest.json's figures, by ending, where they are not `<quantity>_<server>`.
HIGHER = ("per_second", "per_s", "speedup", "throughput_ratio", "share_of_h2load", "_met")
LOWER = ("_us", "_ns", "_bytes", "_ratio", "seconds_to_ready", "instructions", "per_row", "us_per")


def better(name: str) -> Better | None:
    """Tell which direction of a metric is an improvement; None where neither is.

    Parameters
    ----------
    name
        "run.quantity" as scenarios write it, or a figure of `latest.json`.
    """
    quantity = QUANTITIES.get(name.rsplit(".", 1)[-1])
    if quantity is not None:
        return quantity.better
    if "busy_share" in name or "offered" in name:
        return None
    if any(part in name for part in HIGHER) or "per_server_cpu_second" in name:
        return "higher"
    if any(part in name for part in LOWER) or "_ratio_" in name:
        return "lower"
    return None


def unit(name: str) -> str:
    """Return the unit of "run.quantity", or of a figure by its ending."""
    quantity = QUANTITIES.get(name.rsplit(".", 1)[-1])
    if quantity is not None:
        return quantity.unit
    for part, symbol in (("_us_", "µs"), ("_ns_", "ns"), ("_bytes", "B"), ("per_second", "1/s")):
        if part in name + "_" and "ratio" not in name:
            return symbol
    return ""
