"""A scenario made of command line options, and options laid over a scenario's file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from bench.errors import ScenarioError
from bench.scenario import (
    MAX_RATE_PER_S,
    Bursts,
    Closed,
    Constant,
    LoadKind,
    OneFile,
    ParquetRows,
    Poisson,
    Ramp,
    Rate,
    Recorded,
    Run,
    Scenario,
    Source,
    check,
)

WHERE = "command line"


def rate(text: str, option: str, of: str) -> Rate:
    """Read calls per second, or a share of the capacity of the server `of` as "50%".

    Raises
    ------
    ScenarioError
        Not a number, or not a rate that anybody can send.
    """
    share = text.endswith("%")
    try:
        value = float(text.rstrip("%").replace("_", "").replace(",", ""))
    except ValueError:
        value = math.nan
    most = 1000.0 if share else MAX_RATE_PER_S
    if not 0 < value <= most:
        raise ScenarioError(
            f"{option}: {text!r} is no possible rate: calls per second above 0 and at most "
            f"{MAX_RATE_PER_S:,.0f}, or a share of the capacity such as 50%"
        )
    return Rate(capacity=value / 100, of=of) if share else Rate(per_s=value)


def _parts(text: str, option: str, form: str) -> list[str]:
    parts = text.split(":")
    if len(parts) != form.count(":") + 1:
        raise ScenarioError(f"{option}: {text!r} is not {form}")
    return parts


def _seconds(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise ScenarioError(f"{option}: {text!r} is no number of seconds above 0")
    return value


def load_of(given: Mapping[str, Any], of: str) -> LoadKind | None:
    """Return the load that the options ask for; None if they ask for none.

    Raises
    ------
    ScenarioError
        Two loads, or a rate that cannot be.
    """
    kinds = [key for key in ("closed", "rate", "ramp", "bursts") if given.get(key)]
    if len(kinds) > 1:
        raise ScenarioError(f"give only one of --{', --'.join(kinds)}")
    if given.get("poisson") and kinds != ["rate"]:
        raise ScenarioError("--poisson says how the calls of --rate are spaced; give --rate too")
    if given.get("closed"):
        return Closed()
    if given.get("rate"):
        value = rate(given["rate"], "--rate", of)
        return Poisson(value) if given.get("poisson") else Constant(value)
    if given.get("ramp"):
        start, end = _parts(given["ramp"], "--ramp", "START:END")
        return Ramp(rate(start, "--ramp", of), rate(end, "--ramp", of))
    if given.get("bursts"):
        form = "BASE:PEAK:PERIOD_S:BURST_S"
        base, peak, period, burst = _parts(given["bursts"], "--bursts", form)
        return Bursts(
            rate(base, "--bursts", of),
            rate(peak, "--bursts", of),
            _seconds(period, "--bursts"),
            _seconds(burst, "--bursts"),
        )
    return None


def source_of(given: Mapping[str, Any]) -> Source | None:
    """Return where the options take messages from; None if they do not say."""
    kinds = [key for key in ("message", "recording", "parquet") if given.get(key)]
    if len(kinds) > 1:
        raise ScenarioError(f"give only one of --{', --'.join(kinds)}")
    if given.get("message"):
        return OneFile(str(given["message"]))
    if given.get("recording"):
        return Recorded(str(given["recording"]))
    if given.get("parquet"):
        return ParquetRows(str(given["parquet"]), form=given.get("form") or "dense")
    return None


def scenario(given: Mapping[str, Any], base: Scenario | None) -> Scenario:
    """Return the scenario to run: the file's with the options laid over it, or the options' own.

    Raises
    ------
    ScenarioError
        Options that contradict one another, or cannot be.
    """
    # A share of capacity is that of the server in question.
    of = given.get("server") or ("target" if base is None else base.runs[-1].server)
    load, source = load_of(given, of), source_of(given)
    made = base
    if made is None:
        made = Scenario(
            title="One load",
            about="Made of command line options.",
            runs=[Run("target", given.get("server") or "target")],
            repetitions=1,
            name="run",
        )
    changes: dict[str, Any] = {"runs": made.runs}
    if load is not None:
        changes["load"] = load
        changes["runs"] = [msgspec.structs.replace(run, load=None) for run in changes["runs"]]
    if source is not None:
        changes["messages"] = source
        changes["runs"] = [msgspec.structs.replace(run, messages=None) for run in changes["runs"]]
    shape = {
        key: given[key]
        for key in ("connections", "streams", "timeout_ms", "order")
        if given.get(key) is not None
    }
    if shape:
        changes["shape"] = msgspec.structs.replace(made.shape, **shape)
        changes["runs"] = [
            run
            if run.shape is None
            else msgspec.structs.replace(run, shape=msgspec.structs.replace(run.shape, **shape))
            for run in changes["runs"]
        ]
    if given.get("duration_s") is not None:
        changes["duration_s"] = given["duration_s"]
        changes["runs"] = [msgspec.structs.replace(run, duration_s=None) for run in changes["runs"]]
    for key in ("warmup_s", "repetitions", "check_share", "max_error_share"):
        if given.get(key) is not None:
            changes[key] = given[key]
    made = msgspec.structs.replace(made, **changes)
    check(made, WHERE)
    return made
