"""One result file as a section of the report: which plots and tables it gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from statistics import median
from typing import Any

from bench import plots, results
from bench.hdr import Histogram
from bench.plots import number
from bench.plots import quantity as with_unit
from bench.quantities import QUANTITIES, unit

COLUMNS = (
    ("calls_per_s", "calls/s"),
    ("cpu_us_per_call", "CPU µs/call"),
    ("p50_us", "p50 µs"),
    ("p99_us", "p99 µs"),
    ("p999_us", "p99.9 µs"),
    ("p9999_us", "p99.99 µs"),
    ("n_errors", "errors"),
)
# Which steps of latest.json are drawn together, and what they are called.
STEPS = {
    "closed": "Closed loop, 8 connections of 4 streams",
    "offered": "The same offered rate, open loop",
    "half": "Half of Score's capacity, open loop",
    "single": "One call in flight",
    "paused": "Redis stopped for good after a second, open loop",
    "unbroken": "Redis stopped, and no breaker, open loop",
    "broken": "Closed loop; Redis stopped and its breaker open",
}
SERVERS = (
    *("echo", "score", "heavy", "grpc_aio"),
    *("lmdb_dense", "lmdb_uniform", "lmdb_zipf", "redis_dense", "redis_uniform"),
)


@dataclass
class Section:
    """One result file, ready to be shown."""

    name: str
    title: str
    about: str
    document: dict[str, Any]
    plots: list[str] = field(default_factory=list)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Its promises."""
        return list(self.document["targets"])

    @property
    def reasons(self) -> list[str]:
        """What speaks against it."""
        return list(self.document.get("invalid_reasons", []))


# Title and text of the result files that no scenario describes.
UNSCRIPTED = {
    "latest": (
        "What a call costs",
        (
            "Score and a bare echo of the same rooms, measured in turns on one core, the load on "
            "another; grpc.aio's echo beside them. Requests differ, and every answer is checked."
        ),
    ),
    "features": (
        "Features from a store",
        (
            "The same request with stored and with dense features, in turns, on one process; bare "
            "reads of the same keys beside them. LMDB holds a million customers; Redis is on a "
            "Unix socket, is stopped under load, and stays away with an open breaker."
        ),
    ),
    "rollout": (
        "Versions swapped and rolled back",
        (
            "A thousand versions loaded, proven, put in force and freed beside a load at half of "
            "capacity, in turns with the same load alone; rollbacks, each answer's arrival taken "
            "by the kernel; 24 engines in one process beside one."
        ),
    ),
    "crosscheck": (
        "Two clients, one server",
        (
            "Our load generator and h2load in turns, closed loop, on a model heavy enough to make "
            "the server the limit: both must see the same throughput."
        ),
    ),
    "instructions": (
        "Instructions of a call",
        "User instructions of the loop thread, by callgrind: repeatable where times are not.",
    ),
}


def section(name: str, document: dict[str, Any]) -> Section:
    """Make a section of a result file, with every plot that its runs allow."""
    scenario = document.get("scenario")
    if scenario is None:
        made = Section(
            name,
            *UNSCRIPTED.get(name, UNSCRIPTED["latest"]),
            document,
        )
        made.plots = list(_figures(name, document))
        return made
    made = Section(name, scenario["title"], scenario["about"], document)
    made.plots = list(_scenario_plots(name, document))
    return made


def runs_of(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by name, repetitions in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in document.get("runs", []):
        found.setdefault(run["run"], []).append(run)
    for repetitions in found.values():
        repetitions.sort(key=lambda run: run["repetition"])
    return found


def merged(repetitions: list[dict[str, Any]]) -> Histogram:
    """Return the latencies of all repetitions together."""
    whole = Histogram()
    for run in repetitions:
        whole.merge(Histogram.decode(run["result"]["latency"]["hdr"]))
    return whole


def _values(repetitions: list[dict[str, Any]], quantity: str) -> list[float]:
    found = [run["quantities"].get(quantity) for run in repetitions]
    return [value for value in found if value is not None]


def _bound(repetitions: list[dict[str, Any]]) -> bool:
    return any(run["client_bound"] for run in repetitions)


def _bars(
    runs: dict[str, list[dict[str, Any]]], quantity: str, title: str, label: str
) -> Iterable[str]:
    rows = [(name, _values(found, quantity), _bound(found)) for name, found in runs.items()]
    if quantity != "calls_per_s":
        rows = [(name, values, False) for name, values, _ in rows]
    rows = [row for row in rows if row[1]]
    if rows:
        about = QUANTITIES[quantity]
        colours = {name: i for i, name in enumerate(runs)}
        yield plots.bars(title, rows, f"{about.about}, {about.unit}", colours, label)


def _figures(name: str, document: dict[str, Any]) -> Iterable[str]:
    runs = runs_of(document)
    for step, title in STEPS.items():
        found = {
            server: runs[f"{step}_{server}"] for server in SERVERS if f"{step}_{server}" in runs
        }
        if not found:
            continue
        if step in ("closed", "offered", "broken"):
            text = f"CPU per call. {title}"
            yield from _bars(found, "cpu_us_per_call", text, f"{name} {step} cpu")
        if step == "closed":
            yield from _bars(found, "calls_per_s", f"Throughput. {title}", f"{name} {step} rate")
        if step == "closed" and "aio_grpc_aio" in runs:
            whole = {**found, "grpc_aio": runs["aio_grpc_aio"]}
            text = "CPU per call, beside grpc.aio's echo"
            yield from _bars(whole, "cpu_us_per_call", text, f"{name} {step} aio")
        if step in ("half", "single", "paused", "unbroken"):
            colours = {server: i for i, server in enumerate(found)}
            tails = {server: merged(repetitions) for server, repetitions in found.items()}
            yield plots.percentiles(f"Latency. {title}", tails, colours, f"{name} {step} latency")


def _scenario_plots(name: str, document: dict[str, Any]) -> Iterable[str]:
    runs = runs_of(document)
    order = [run["name"] for run in document["scenario"]["runs"] if run["name"] in runs]
    runs = {key: runs[key] for key in order}
    if not runs:
        return
    colours = {key: i for i, key in enumerate(runs)}
    sweeps = {key: [run["points"] for run in found if run["points"]] for key, found in runs.items()}
    sweeps = {key: points for key, points in sweeps.items() if points}
    if sweeps:
        # Their rates may be of different magnitudes: a plot each.
        for key, points in sweeps.items():
            bound = ", client-bound" if _bound(runs[key]) else ""
            title = f"Latency against load: {key}{bound}"
            yield plots.against_load(title, {key: points}, colours, f"{name} {key} load")
        yield from _bars(runs, "knee_per_s", "The knee", f"{name} knee")
        return
    tails = {key: merged(found) for key, found in runs.items()}
    yield plots.percentiles("Latency from the intended send time", tails, colours, f"{name} tail")
    yield from _bars(runs, "cpu_us_per_call", "CPU per call", f"{name} cpu")
    yield from _bars(runs, "calls_per_s", "Throughput, answers OK", f"{name} throughput")
    yield from _times(name, runs, colours)


def _times(
    name: str, runs: dict[str, list[dict[str, Any]]], colours: dict[str, int]
) -> Iterable[str]:
    last = {key: found[-1] for key, found in runs.items()}
    lines, dashed = {}, []
    for key, run in last.items():
        series = run["result"]["series"]
        if len(series) > 1:
            seconds = [row["second"] + 1 for row in series]
            lines[f"{key} p99"] = (seconds, [max(row["p99_us"], 0.1) for row in series])
            lines[f"{key} p50"] = (seconds, [max(row["p50_us"], 0.1) for row in series])
            dashed.append(f"{key} p50")
    if lines:
        title = "Latency by second, p99 (dashed: p50), last repetition"
        yield plots.over_time(
            title, lines, "µs", colours, f"{name} seconds",
            log=True, dashed=dashed,
        )  # fmt: skip
    memory = {
        key: (run["watch"]["seconds"], [x / 1e6 for x in run["watch"]["rss_bytes"]])
        for key, run in last.items()
        if run["watch"].get("rss_bytes")
    }
    if memory:
        yield plots.over_time(
            "Server's resident memory, last repetition", memory, "MB", colours, f"{name} memory"
        )


def run_rows(document: dict[str, Any]) -> list[list[str]]:
    """Return the table of runs: medians of what matters, and marks."""
    rows = []
    for name, found in runs_of(document).items():
        cells = [name]
        for quantity, _ in COLUMNS:
            values = _values(found, quantity)
            cells.append(number(median(values)) if values else "-")
        marks = ["client-bound"] if _bound(found) else []
        marks += ["not valid"] if not all(run["valid"] for run in found) else []
        again = sum(run.get("n_attempts", 1) - 1 for run in found)
        marks += [f"{again} made again"] if again else []
        rows.append([*cells, ", ".join(marks)])
    return rows


def figure_rows(document: dict[str, Any]) -> list[list[str]]:
    """Return every figure with its spread, for a file that is no scenario's."""
    rows = []
    for name, values in results.spreads({k: v for k, v in document.items() if k != "runs"}).items():
        shown = [with_unit(name, x) for x in (min(values), median(values), max(values))]
        rows.append([name, *shown, unit(name).replace("B", "")])
    return rows


def html_table(head: list[str], rows: list[list[str]], *, text_columns: tuple[int, ...]) -> str:
    """Return a table; all columns but `text_columns` are aligned as numbers."""

    def cells(tag: str, row: list[str]) -> str:
        return "".join(
            f"<{tag}{'' if i in text_columns else ' class=n'}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f"<div class=scroll><table><thead><tr>{cells('th', head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
