"""`python -m bench`: measure everything there is and write the result files.

`latest.json` holds the figures that the README quotes; every scenario has a file of its name.
A valid whole run adds a line to `history.jsonl`. With `--quick` the same is run for a minute or
two and written to `bench/results/quick/`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from bench import (
    crosscheck,
    feature_figures,
    feature_plan,
    features,
    feedback,
    feedback_plan,
    history,
    kernels,
    model,
    monitoring,
    monitoring_plan,
    results,
    rollout,
    rollout_plan,
    scenario,
    transport,
)
from bench.errors import BenchError, LoadError
from bench.progress import Display
from bench.results import Spread, Target
from bench.runner import Options, Report, Runner, free_core
from bench.scenario import Scenario

RESULTS = Path("bench/results")
SOAK_SCALE = 0.01
# What is no scenario.
OWN = ("latest", "features", "rollout", "monitoring", "feedback", "crosscheck")


def table(values: dict[str, Any], targets: list[Target]) -> str:
    """Lay the numbers out for a terminal."""
    lines = [f"{'':48}{'min':>12}{'median':>12}{'max':>12}"]
    for name, value in values.items():
        if isinstance(value, Spread):
            lines.append(f"{name:48}{value.min:12.5g}{value.median:12.5g}{value.max:12.5g}")
        elif isinstance(value, bool | int | float):
            lines.append(f"{name:48}{'':12}{value!s:>12}")
    lines += ["", f"{'target':48}{'measured':>12}{'promised':>15}"]
    lines += [
        f"{t.name:48}{t.value:12.5g}{t.op:>6}{t.target:9.4g}  {'met' if t.met else 'NOT MET'}"
        for t in targets
    ]
    return "\n".join(lines)


def scenario_table(report: Report) -> str:
    """Lay a scenario out for a terminal: its runs, then its promises."""
    names = ("calls_per_s", "cpu_us_per_call", "p50_us", "p99_us", "p999_us", "n_errors")
    heads = ("calls/s", "CPU µs", "p50 µs", "p99 µs", "p99.9 µs", "errors")
    lines = [f"{'run':20}" + "".join(f"{head:>12}" for head in heads)]
    metrics = report.metrics()
    for run in dict.fromkeys(found.run for found in report.runs):
        cells = []
        for name in names:
            spread = metrics.get(f"{run}.{name}")
            cells.append(f"{spread.median:12,.5g}" if spread else f"{'-':>12}")
        bound = any(found.client_bound for found in report.runs if found.run == run)
        lines.append(f"{run:20}" + "".join(cells) + ("  client-bound" if bound else ""))
    _, targets, unjudged = report.promises()
    if targets or unjudged:
        lines.append("")
    lines += [
        f"{t.name:30}{t.value:12.4g} {t.op} {t.target:<9.4g} {'met' if t.met else 'NOT MET'}"
        for t in targets
    ]
    lines += [f"not judged: {reason}" for reason in unjudged]
    lines += [f"NOT VALID: {reason}" for reason in report.reasons]
    return "\n".join(lines)


def document(report: Report, command: str) -> dict[str, Any]:
    """Return the result file of one scenario."""
    found = report.document()
    return results.document(found, found.pop("targets"), command)


def main() -> int:
    """Run the benchmarks; 0 when they ran and are valid, whether or not every target is met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes: a first look")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the result files")
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help=f"{', '.join(OWN)}, or scenarios' names"
    )
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        parser.error("the benchmarks need two cores: one for the server, one for the load")
    quick = options.quick
    folder = options.out or (RESULTS / "quick" if quick else RESULTS)
    command = "make bench-quick" if quick else "make bench"
    display, valid = Display(), True
    names = options.only or [*OWN, *scenario.available()]
    try:
        scenarios = [scenario.load(scenario.find(name)) for name in names if name not in OWN]
        if "latest" in names:
            display.say("model: 100 trees of depth 6 on 30 features")
            valid = _latest(folder, transport.QUICK if quick else transport.FULL, display, command)
        if "features" in names:
            valid = _features(folder, quick, display, command) and valid
        if "rollout" in names:
            valid = _rollout(folder, quick, display, command) and valid
        if "monitoring" in names:
            valid = _monitoring(folder, quick, display, command) and valid
        if "feedback" in names:
            valid = _feedback(folder, quick, display, command) and valid
        if "crosscheck" in names:
            _crosscheck(folder, quick, display, command)
        for wanted in scenarios:
            valid = _scenario(folder, wanted, quick, display, command) and valid
    except BenchError as error:
        display.end()
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten to {folder}; `scoregate bench report {folder}/*.json` shows them")
    return 0 if valid else 1


def _scenario(folder: Path, wanted: Scenario, quick: bool, display: Display, command: str) -> bool:
    """Run one scenario and write its file; a scenario that cannot be run ends nothing else."""
    scale = SOAK_SCALE if wanted.name == "soak" else 1.0
    choices = Options(time_scale=scale, quick=quick, core=free_core())
    try:
        report = Runner(wanted, choices, display).run()
    except LoadError as error:
        display.end()
        print(f"\n{wanted.title} ({wanted.name})\nNOT RUN: {error}", file=sys.stderr)
        return False
    print(f"\n{wanted.title} ({wanted.name})\n{scenario_table(report)}")
    results.save(folder / f"{wanted.name}.json", document(report, command))
    return report.valid


def _crosscheck(folder: Path, quick: bool, display: Display, command: str) -> None:
    n_calls, repetitions = (30_000, 2) if quick else (200_000, 5)
    values, targets = crosscheck.run(n_calls, repetitions, display)
    print(f"\nOur generator and h2load, the server being the limit\n{table(values, targets)}")
    results.save(folder / "crosscheck.json", results.document(values, targets, command))


def _features(folder: Path, quick: bool, display: Display, command: str) -> bool:
    """Measure stored features; whoever lacks redis-server gets everything else."""
    try:
        plan = feature_plan.QUICK if quick else feature_plan.FULL
        found = features.run(plan, display, free_core())
    except BenchError as error:
        display.end()
        print(f"\nStored features\nNOT RUN: {error}", file=sys.stderr)
        return False
    values, targets = feature_figures.summary(found)
    print(f"\nStored features beside dense ones\n{table(values, targets)}")
    for reason in values["invalid_reasons"]:
        print(f"NOT VALID: {reason}")
    results.save(folder / "features.json", results.document(values, targets, command))
    return bool(values["valid"])


def _rollout(folder: Path, quick: bool, display: Display, command: str) -> bool:
    """Measure changes of versions; what cannot be measured ends nothing else."""
    try:
        plan = rollout_plan.QUICK if quick else rollout_plan.FULL
        found = rollout.run(plan, display, free_core())
    except BenchError as error:
        display.end()
        print(f"\nRollout\nNOT RUN: {error}", file=sys.stderr)
        return False
    values, targets = rollout.summary(found)
    print(f"\nVersions swapped and rolled back under load\n{table(values, targets)}")
    for reason in values["invalid_reasons"]:
        print(f"NOT VALID: {reason}")
    results.save(folder / "rollout.json", results.document(values, targets, command))
    return bool(values["valid"])


def _monitoring(folder: Path, quick: bool, display: Display, command: str) -> bool:
    """Measure what watching costs; what cannot be measured ends nothing else."""
    try:
        plan = monitoring_plan.QUICK if quick else monitoring_plan.FULL
        found = monitoring.run(plan, display, free_core())
    except BenchError as error:
        display.end()
        print(f"\nMonitoring\nNOT RUN: {error}", file=sys.stderr)
        return False
    values, targets = monitoring.summary(found)
    print(f"\nWatched for drift, and scraped\n{table(values, targets)}")
    for reason in values["invalid_reasons"]:
        print(f"NOT VALID: {reason}")
    results.save(folder / "monitoring.json", results.document(values, targets, command))
    return bool(values["valid"])


def _feedback(folder: Path, quick: bool, display: Display, command: str) -> bool:
    """Measure what outcomes cost; what cannot be measured ends nothing else."""
    try:
        plan = feedback_plan.QUICK if quick else feedback_plan.FULL
        found = feedback.run(plan, display, free_core())
    except BenchError as error:
        display.end()
        print(f"\nFeedback\nNOT RUN: {error}", file=sys.stderr)
        return False
    values, targets = feedback.summary(found)
    print(f"\nDecisions recorded, and joined with their outcomes\n{table(values, targets)}")
    for reason in values["invalid_reasons"]:
        print(f"NOT VALID: {reason}")
    results.save(folder / "feedback.json", results.document(values, targets, command))
    return bool(values["valid"])


def _latest(folder: Path, sizes: transport.Sizes, display: Display, command: str) -> bool:
    bench = model.prepare()
    kernel_values, kernel_targets = kernels.run(bench, sizes.repetitions, display.say)
    measured, targets = transport.run(bench, sizes, display, free_core())
    values: dict[str, Any] = dict(measured)
    runs = values.pop("runs")
    values |= kernel_values
    targets += kernel_targets
    print(table(values, targets))
    for reason in values["invalid_reasons"]:
        print(f"NOT VALID: {reason}")
    whole = results.document({**values, "runs": runs}, targets, command)
    results.save(folder / "latest.json", whole)
    if values["valid"] and folder == RESULTS:
        history.append("bench", {target.name: target.value for target in targets})
    return bool(values["valid"])


if __name__ == "__main__":
    sys.exit(main())
