"""Scenarios: what is run, on which servers, with which messages, and what has to hold.

Rules
-----
* A scenario is one TOML file; `bench/scenarios/` holds those of the house. Everything that is not
  said has a default; everything that is not known is an error with the file and the key's path.
* A repetition makes every run once; every other repetition makes them in reverse order, so that
  what the machine does meanwhile hits all of them. Claims are ratios within a repetition.
* `acceptance` entries divide one run's quantity by another's (`numerator = "score.p99_us"`) and
  compare the median over the repetitions with a promised `target`.
* A rate is absolute (`per_s`), or a share of what a server was measured to take at the beginning
  of the scenario (`capacity = 0.5, of = "score"`; see `measure.open_capacity`).

A scenario does not say how long the machine's owner has: `--time-scale` and `--quick` do.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bench.errors import ScenarioError
from bench.quantities import QUANTITIES

FOLDER = Path(__file__).parent / "scenarios"
MAX_RATE_PER_S = 5_000_000.0
SERVERS = ("echo", "score", "heavy", "grpc_aio")

Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Rate_ = Annotated[float, Meta(gt=0, le=MAX_RATE_PER_S)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls per second, or a share of a server's measured capacity."""

    per_s: Rate_ | None = None
    capacity: Annotated[float, Meta(gt=0, le=10)] | None = None
    of: Name = "score"


class Closed(Struct, frozen=True, forbid_unknown_fields=True, tag="closed", tag_field="kind"):
    """As fast as answers come: `connections * streams` calls in flight."""


class Constant(Struct, frozen=True, forbid_unknown_fields=True, tag="constant", tag_field="kind"):
    """Evenly spaced calls."""

    rate: Rate


class Poisson(Struct, frozen=True, forbid_unknown_fields=True, tag="poisson", tag_field="kind"):
    """Calls that know nothing of one another: exponential gaps."""

    rate: Rate
    seed: int = 1


class Ramp(Struct, frozen=True, forbid_unknown_fields=True, tag="ramp", tag_field="kind"):
    """A rate that grows (or falls) linearly."""

    start: Rate
    end: Rate


class Bursts(Struct, frozen=True, forbid_unknown_fields=True, tag="bursts", tag_field="kind"):
    """A base rate, and every `period_s` a burst of `burst_s` at the peak rate."""

    base: Rate
    peak: Rate
    period_s: Positive = 1.0
    burst_s: Positive = 0.1


class Sweep(Struct, frozen=True, forbid_unknown_fields=True, tag="sweep", tag_field="kind"):
    """Steps of growing Poisson rates, to saturation; the knee is where latency leaves its limit.

    The knee is the highest rate before the first step that was answered too late (p99 over
    `limit_us`), too little (below `kept` of what was offered) or with errors.
    """

    steps: Annotated[list[Rate], Meta(min_length=2, max_length=50)]
    limit_us: Positive = 5_000.0
    kept: Share = 0.98
    seed: int = 1


LoadKind = Closed | Constant | Poisson | Ramp | Bursts | Sweep


class Rows(Struct, frozen=True, forbid_unknown_fields=True, tag="rows", tag_field="kind"):
    """Requests of the bench's own model: seeded rows, entities and request ids, all different."""

    n: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    n_entities: Annotated[int, Meta(ge=1)] = 500
    models: list[str] = []
    form: Literal["dense", "named"] = "dense"
    extra_bytes: Annotated[int, Meta(ge=0, le=3_900_000)] = 0  # makes a large message of each
    seed: int = 1


class Recorded(Struct, frozen=True, forbid_unknown_fields=True, tag="recorded", tag_field="kind"):
    """Messages of a recorded file (see `bench.recording`), each with its method."""

    file: str


class EntityColumn(Struct, frozen=True, forbid_unknown_fields=True):
    """A column that names entities."""

    role: str
    type: str
    column: str


class ParquetRows(Struct, frozen=True, forbid_unknown_fields=True, tag="parquet", tag_field="kind"):
    """Score requests from the rows of a Parquet file."""

    file: str
    columns: list[str] = []  # features, in the layout's order; all others' columns if empty
    form: Literal["dense", "named"] = "dense"
    model: str = ""
    request_id: str | None = None
    event_time_ms: str | None = None
    routing_key: str | None = None
    entities: list[EntityColumn] = []
    limit: Annotated[int, Meta(ge=1, le=5_000_000)] = 100_000


class OneFile(Struct, frozen=True, forbid_unknown_fields=True, tag="file", tag_field="kind"):
    """One serialized message in a file of its own, without gRPC's prefix."""

    file: str


Source = Rows | Recorded | ParquetRows | OneFile


class Shape(Struct, frozen=True, forbid_unknown_fields=True):
    """How calls share connections."""

    connections: Annotated[int, Meta(ge=1, le=4096)] = 8
    streams: Annotated[int, Meta(ge=1, le=1000)] = 4
    timeout_ms: Positive = 1000.0
    order: Literal["cycle", "random"] = "random"


class Background(Struct, frozen=True, forbid_unknown_fields=True):
    """A second load beside the measured one; only its errors are looked at."""

    rate: Rate
    messages: Source
    connections: Annotated[int, Meta(ge=1, le=1024)] = 1
    streams: Annotated[int, Meta(ge=1, le=1000)] = 4


class Beside(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to the server while a run is measured."""

    idle_connections: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    scrape_every_ms: Annotated[float, Meta(ge=0)] | None = None  # 0: again at once
    load: Background | None = None


class Run(Struct, frozen=True, forbid_unknown_fields=True):
    """One measured run of a repetition. What it leaves out is the scenario's."""

    name: Name
    server: Name
    load: LoadKind | None = None
    shape: Shape | None = None
    messages: Source | None = None
    duration_s: Seconds | None = None
    beside: Beside | None = None
    max_error_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    spin_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # of the server


class Acceptance(Struct, frozen=True, forbid_unknown_fields=True):
    """A promise: numerator over denominator, median of the repetitions, against a target."""

    name: Name
    numerator: str
    op: Literal["<=", ">="]
    target: float
    denominator: str | None = None


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole scenario file."""

    title: str
    about: str
    runs: Annotated[list[Run], Meta(min_length=1, max_length=20)]
    load: LoadKind = Closed()
    messages: Source = Rows()
    shape: Shape = Shape()
    duration_s: Seconds = 5.0
    quick_s: Seconds = 1.0  # duration in a quick run
    warmup_s: Annotated[float, Meta(ge=0, le=600)] = 0.5
    repetitions: Annotated[int, Meta(ge=1, le=1000)] = 5
    check_share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    max_error_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    acceptance: list[Acceptance] = []
    name: str = ""  # the file's stem


def rates_of(load: LoadKind) -> list[tuple[str, Rate]]:
    """Return every rate of a load with the key that holds it."""
    match load:
        case Constant(rate) | Poisson(rate):
            return [("rate", rate)]
        case Ramp(start, end):
            return [("start", start), ("end", end)]
        case Bursts(base, peak):
            return [("base", base), ("peak", peak)]
        case Sweep(steps):
            return [(f"steps[{i}]", rate) for i, rate in enumerate(steps)]
    return []


def capacities(scenario: Scenario) -> list[str]:
    """Return the servers whose capacity has to be measured first."""
    found = []
    for run in scenario.runs:
        rates = [rate for _, rate in rates_of(run.load or scenario.load)]
        if run.beside is not None and run.beside.load is not None:
            rates.append(run.beside.load.rate)
        found += [rate.of for rate in rates if rate.capacity is not None]
    return list(dict.fromkeys(found))


def available() -> dict[str, Path]:
    """Return the scenarios of the house by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find(name: str) -> Path:
    """Return the file of a scenario, given its name or its path.

    Raises
    ------
    ScenarioError
        Neither a file nor the name of one of the house's scenarios.
    """
    named = available()
    if name in named:
        return named[name]
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    raise ScenarioError(f"{name}: no scenario of this name ({', '.join(named)}) and no .toml file")


def load(path: Path) -> Scenario:
    """Read and check one scenario.

    Raises
    ------
    ScenarioError
        With the file, the key's path and what is wrong there.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    document["name"] = path.stem
    try:
        scenario = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        key = where.strip("`").removeprefix("$").removeprefix(".") or "the top level"
        raise ScenarioError(f"{path}: {key}: {what}") from None
    check(scenario, str(path))
    return scenario


def check(scenario: Scenario, where: str) -> None:
    """Check what types cannot say.

    Raises
    ------
    ScenarioError
        With `where`, the key's path and what is wrong there.
    """
    names = [run.name for run in scenario.runs]
    _check_load(scenario.load, f"{where}: load")
    for i, run in enumerate(scenario.runs):
        at = f"{where}: runs[{i}]"
        if names.index(run.name) != i:
            raise ScenarioError(f"{at}.name: {run.name!r} is the name of an earlier run too")
        if run.server not in (*SERVERS, "target"):
            raise ScenarioError(
                f"{at}.server: {run.server!r} is none of {', '.join(SERVERS)}, or target (what "
                "--address names)"
            )
        if run.load is not None:
            _check_load(run.load, f"{at}.load")
        if run.beside is not None and run.beside.load is not None:
            _check_rate(run.beside.load.rate, f"{at}.beside.load.rate")
    for server in capacities(scenario):
        if server not in (*SERVERS, "target"):
            raise ScenarioError(f"{where}: capacity of {server!r}: there is no such server")
    for i, promise in enumerate(scenario.acceptance):
        for key in ("numerator", "denominator"):
            text = getattr(promise, key)
            if text is not None:
                _check_reference(text, names, f"{where}: acceptance[{i}].{key}")


def _check_load(kind: LoadKind, where: str) -> None:
    for key, rate in rates_of(kind):
        _check_rate(rate, f"{where}.{key}")
    if isinstance(kind, Bursts) and kind.burst_s >= kind.period_s:
        raise ScenarioError(f"{where}.burst_s: {kind.burst_s} is not shorter than the period")


def _check_rate(rate: Rate, where: str) -> None:
    if (rate.per_s is None) == (rate.capacity is None):
        raise ScenarioError(f"{where}: give either per_s or capacity")


def _check_reference(text: str, names: list[str], where: str) -> None:
    run, dot, quantity = text.partition(".")
    if not dot or run not in names:
        raise ScenarioError(f"{where}: {text!r} is not run.quantity; runs: {', '.join(names)}")
    if quantity not in QUANTITIES:
        raise ScenarioError(f"{where}: {quantity!r} is none of {', '.join(QUANTITIES)}")
