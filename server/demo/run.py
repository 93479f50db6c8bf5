"""The demo from end to end: transactions, model, bundle, store, server, replay."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from server.demo.artifacts import (
    MODEL,
    NEXT_VERSION,
    VERSION,
    VERSIONS,
    Artifacts,
    State,
    fingerprint,
)
from server.demo.drifting import DriftStory
from server.demo.faults import FaultKind
from server.demo.groups import demo_groups
from server.demo.outcomes import OutcomeStory
from server.demo.processes import DEFAULT_PORTS, ReplayProcess, ServerProcess, choose_ports
from server.demo.prometheus import Prometheus, find_prometheus, how_to_start
from server.demo.report import Steps, Summary
from server.demo.sizes import Size
from server.demo.stores import DemoStore, StoreKind, demo_store
from server.demo.tables import load_tables, save_tables
from server.errors import StartError

if TYPE_CHECKING:
    from server.export import ExportReport

REFRESH_S = 0.25
Alerts = Callable[[], list[list[str]]]  # name and state of each that Prometheus has
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class DemoOptions:
    """What a user can choose; the command line's options have the same names.

    Attributes
    ----------
    data : Path or None
        A file of transactions; None simulates.
    size : Size
        What to simulate.
    seed : int
        Of the simulation and of the training.
    directory : Path
        Where artifacts and logs are kept.
    seconds : float or None
        How long to replay; None: until a signal.
    rate : float
        Calls a second.
    store : {"lmdb", "redis", "none"}
        Where the server finds stored features.
    fresh : bool
        Whether to make everything anew.
    free_ports : bool
        Whether to take any free ports, instead of the usual ones where those are free.
    drift : FaultKind or None
        What goes wrong with the stream after a while; None: the demo is not about drift.
    drift_after_s : float or None
        When; None: as soon as drift is judged to be stable.
    prometheus : bool
        Whether to run a Prometheus, too.
    explore : float or None
        Share of what is to be blocked that passes, in a world where blocked transactions have no
        outcome; None: they have, and nothing is explored.
    """

    data: Path | None
    size: Size
    seed: int
    directory: Path
    seconds: float | None
    rate: float
    store: StoreKind
    fresh: bool
    free_ports: bool
    drift: FaultKind | None = None
    drift_after_s: float | None = None
    prometheus: bool = False
    explore: float | None = None


def run(options: DemoOptions, console: Console) -> None:
    """Run the demo; return after a signal, or after `options.seconds`.

    Raises
    ------
    InputError
        The data or the directory cannot be used.
    StartError
        The server does not start, or ends by itself.
    """
    if options.prometheus:
        find_prometheus()  # before anything is made
    steps = Steps(console)
    artifacts = Artifacts(options.directory)
    with artifacts.lock():
        state = _prepare(options, artifacts, steps)
        with _stopping() as stop:
            _show_data(state, steps)
            with _open_store(options, artifacts, state, steps) as store:
                artifacts.forget_drift()
                artifacts.forget_decisions()
                story = _story(options, state)
                _serve_and_replay(options, artifacts, store, story, steps, console, stop)


def _prepare(options: DemoOptions, artifacts: Artifacts, steps: Steps) -> State:
    """Make the artifacts, or find those of an earlier run."""
    wanted = fingerprint(options.data, options.size, options.seed)
    kept = None if options.fresh else artifacts.find(wanted)
    if kept is not None:
        steps.say(
            f"Model, bundle and test week are those of an earlier run ({options.directory}; "
            "--fresh makes them anew)"
        )
        return kept
    # pandas, scikit-learn and onnx are needed only here: a second run starts without them.
    with steps.step("Loading pandas and scikit-learn"):
        from server.demo.dataset import make_dataset, replay_rows
        from server.demo.training import train_and_export
    what = f"Reading {options.data}" if options.data else "Simulating transactions"
    with steps.step(f"{what}, computing features"):
        dataset = make_dataset(options.data, options.size, options.seed)
    artifacts.clear()
    made = {}
    with steps.step("Training and exporting two versions") as detail:
        for version in VERSIONS:
            made[version] = train_and_export(
                dataset,
                version,
                out=artifacts.bundle(version),
                model_file=artifacts.model_file(version),
                seed=options.seed,
                step=detail,
            )
        raw_score = {version: trained.raw_score for version, trained in made.items()}
        replay_rows(dataset.test, raw_score).save(artifacts.rows)
        save_tables(artifacts.states, dataset.states)
    moments = dataset.test["TX_DATETIME"]
    state = State(
        fingerprint=wanted,
        origin=dataset.origin,
        groups=[table.group for table in dataset.states],
        n_train=len(dataset.train),
        n_test=len(dataset.test),
        test_span_s=(moments.max() - moments.min()).total_seconds(),
        test_quality=made[VERSION].quality,
    )
    artifacts.keep(state)
    for trained in made.values():
        _show_export(trained.report, steps)
    return state


def _show_export(report: ExportReport, steps: Steps) -> None:
    """Print what the export cost, on the validation part."""
    found = report.quantization
    before, after = found.quality_before, found.quality_after
    sizes, times = found.sizes, found.times
    kilobytes = (sizes.pickled_bytes, sizes.onnx_file_bytes, sizes.engine_resident_bytes)
    shown = [f"{n / 1000:,.0f} kB" if n is not None else "-" for n in kilobytes]
    micros = (times.sklearn_us, times.onnxruntime_us, times.native_us)
    spent = [f"{us:,.1f} µs" if us is not None else "-" for us in micros]
    flips = sum(flip.flips for flip in found.flips)
    cuts = ", ".join(f"{t.name} from {t.score:.4f}" for t in report.manifest.thresholds)
    steps.say(f"Bundle {report.path} ({found.engine} engine), thresholds {cuts}")
    steps.say(f"  size      scikit-learn {shown[0]}, model.onnx {shown[1]}, in memory {shown[2]}")
    steps.say(f"  one row   scikit-learn {spent[0]}, onnxruntime {spent[1]}, native {spent[2]}")
    steps.say(
        f"  quality   AUC {_number(before.auc)} -> {_number(after.auc)}, average precision "
        f"{_number(before.average_precision)} -> {_number(after.average_precision)}"
    )
    steps.say(
        f"  scores    differ by at most {found.max_abs_delta_p:.1e}, {flips} of {found.n_rows:,} "
        "decisions differ"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _show_data(state: State, steps: Steps) -> None:
    names = {"auc": "AUC", "average_precision": "average precision"}
    figures = "".join(f", {names[key]} {value:.3f}" for key, value in state.test_quality.items())
    steps.say(f"Transactions: {state.origin}")
    steps.say(f"Trained on {state.n_train:,}; {state.n_test:,} to replay{figures}")


@contextmanager
def _open_store(
    options: DemoOptions, artifacts: Artifacts, state: State, steps: Steps
) -> Iterator[DemoStore]:
    """Fill the batch tables, and run what online records are read from."""
    groups = demo_groups(with_terminals="terminal" in state.groups)
    tables = load_tables(artifacts.states, state.groups) if options.store != "none" else []
    with demo_store(options.store, artifacts.features, groups, tables) as store:
        for line in store.lines:
            steps.say(line)
        yield store


def _story(options: DemoOptions, state: State) -> DriftStory | None:
    """Fit what is about drift to the speed of the replay."""
    if options.drift is None:
        return None
    speed = options.rate * state.test_span_s / state.n_test
    return DriftStory(options.drift, options.rate, speed, options.drift_after_s)


def _serve_and_replay(
    options: DemoOptions,
    artifacts: Artifacts,
    store: DemoStore,
    story: DriftStory | None,
    steps: Steps,
    console: Console,
    stop: threading.Event,
) -> None:
    """Start both processes, show the summary until the end, and end them in order."""
    ports = dict.fromkeys(choose_ports(), 0) if options.free_ports else choose_ports()
    model = f"{MODEL}@{VERSION}"
    outcomes = OutcomeStory(explore=options.explore)
    serve_options = [
        *store.serve_options,
        *outcomes.serve_options(str(artifacts.decisions.absolute()), options.rate),
        *(story.serve_options if story else []),
    ]
    server = ServerProcess(options.directory, artifacts.repository, model, ports, serve_options)
    try:
        steps.say(
            f"Server ready in {server.ready_s:.2f} s, {server.resident_bytes / 1e6:.0f} MB resident"
        )
        where = _where(server.addresses["control"])
        steps.say(
            f"Version {NEXT_VERSION} waits in the repository; from another terminal: "
            f"scoregate deploy {NEXT_VERSION} --traffic 10{where}"
        )
        for line in outcomes.lines(where, server.addresses["sidecar"]):
            steps.say(line)
        with _observed(options, story, server, where, steps) as alerts:
            more = (*(story.replay_options if story else ()), *outcomes.replay_options)
            _replay(options, artifacts, store, more, server, alerts, console, stop)
    finally:
        code = server.end()
    if code != 0:
        raise StartError(f"the server did not end cleanly: exit code {code}")


@contextmanager
def _observed(
    options: DemoOptions,
    story: DriftStory | None,
    server: ServerProcess,
    where: str,
    steps: Steps,
) -> Iterator[Alerts]:
    """Say how to look at drift, and run a Prometheus where one is wanted; yield its alerts."""
    folder, sidecar = options.directory / "prometheus", server.addresses["sidecar"]
    for line in story.lines(where, sidecar) if story else []:
        steps.say(line)
    if not options.prometheus:
        if story:
            steps.say(f"    {how_to_start(folder, sidecar)}")
        yield list
        return
    with Prometheus(folder, sidecar, any_port=options.free_ports) as prometheus:
        for line in prometheus.lines:
            steps.say(line)
        yield prometheus.alerts


def _replay(
    options: DemoOptions,
    artifacts: Artifacts,
    store: DemoStore,
    replay_options: Sequence[str],
    server: ServerProcess,
    alerts: Alerts,
    console: Console,
    stop: threading.Event,
) -> None:
    """Run the client, and show the summary until the end."""
    replay = ReplayProcess(
        server.addresses, artifacts.rows, options.rate, options.directory, store.url, replay_options
    )
    title = f"Scoregate demo: {MODEL}, {options.rate:g} calls a second offered"
    summary = Summary(console, title, server.addresses, options.store)
    try:
        with summary:
            while not stop.wait(REFRESH_S):
                server.check()
                replay.check()
                state = replay.state
                if state:
                    state = state | {"alerts": alerts()}
                summary.update(state, store.supervise())
                elapsed = state.get("elapsed_s", 0.0)
                if options.seconds is not None and elapsed >= options.seconds:
                    break
    finally:
        final = replay.end()
    server.check()
    if final:
        summary.finish(final | {"alerts": alerts()}, store.supervise())


def _where(control: str) -> str:
    """Return the option that leads commands to the control port; empty: they find it."""
    return "" if control.endswith(f":{DEFAULT_PORTS['control']}") else f" --address {control}"


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into an event, for a while."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
