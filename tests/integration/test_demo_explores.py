"""The demo explores: what it says of cost and gain, counted again from what the server recorded.

The whole demo on little data. Which calls pass follows from their ids, and what they really were
from the rows that are replayed.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import precision_score, recall_score

from fastpath.capture import id_hash
from fastpath.ledger import EXPLORED, explored
from server.demo.outcomes import MISTAKEN_SHARE, UNNOTICED_SHARE
from server.feedback.keys import decision_ids
from tests.support.serving import ROOT

SHARE = 0.5
SIZE = ("--customers", "1200", "--terminals", "2400", "--rate", "600")
LIMIT_S = 120.0
ENOUGH = 6_000  # decisions that are old enough: 10 s of calls
# Answers within some milliseconds of a report's end are in the truth and not in the report, or
# the other way round.
AT_THE_END = 3
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SCOREG", "DEMO_"))}
FIGURES = re.compile(
    r"^ +(recall|precision) from (review|block) +(\S+)  +(\S+)(?: \[(\S+), (\S+)\])? +(\S+) *$",
    re.MULTILINE,
)


class Demo:
    """A demo that runs until it is ended."""

    def __init__(self, directory: Path) -> None:
        self._out = directory / "out"
        command = [sys.executable, "-m", "server", "demo", "--directory", str(directory)]
        with self._out.open("w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [*command, "--free-ports", *SIZE, "--explore", str(SHARE)],
                cwd=ROOT, env=ENV, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def until(self, probe: Callable[[], object]) -> None:
        """Wait for something; fail with what was printed, where the demo ends before."""
        limit = time.monotonic() + LIMIT_S
        while not probe():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < limit, self.printed()
            time.sleep(0.2)

    def typed(self, begin: str, *more: str) -> str:
        """Run a command as the demo says it is typed; return what it prints."""
        [line] = re.findall(rf"^ +scoregate ({begin}.*?)$", self.printed(), re.MULTILINE)
        done = subprocess.run(
            [sys.executable, "-m", "server", *line.split(), *more],
            cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def matured(self) -> dict[str, Any]:
        found = json.loads(self.typed("quality", "--json"))["reports"]
        [report] = [one for one in found if one["cohort"] == "matured"]
        return dict(report)

    def end(self) -> str:
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 0, self.printed()
        return self.printed()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


class Calls(NamedTuple):
    """What is replayed, in order, and what becomes of it: n calls."""

    fraud: NDArray[np.bool_]
    amount: NDArray[np.float32]
    raw: NDArray[np.float32]
    blocked: NDArray[np.bool_]  # reaches the blocking threshold
    passed: NDArray[np.bool_]  # of these, explored
    cuts: dict[str, np.float32]

    def first(self, n: int) -> Calls:
        return Calls(
            self.fraud[:n], self.amount[:n], self.raw[:n], self.blocked[:n], self.passed[:n],
            self.cuts,
        )  # fmt: skip

    def values(self, chosen: NDArray[np.bool_], fraud: bool) -> str:
        mine = chosen & (self.fraud == fraud)
        what = "frauds" if fraud else "genuine payments"
        return f"{mine.sum():,} {what} worth {self.amount[mine].astype(np.float64).sum():,.2f}"


def calls(directory: Path, n: int) -> Calls:
    """Return the first n calls, with scores as they were recorded."""
    rows = np.load(directory / "test.npz")
    assert n <= len(rows["fraud"]), "ids of a second turn are others"
    bundle = directory / "repository" / "fraud" / "1.0" / "manifest.json"
    thresholds = json.loads(bundle.read_text("utf-8"))["thresholds"]
    cuts = {one["name"]: np.float32(one["raw_score"]) for one in thresholds}
    # A busy machine may lack features, and low scores may be a sample; high ones are all recorded.
    raw = rows["raw_score"][rows["versions"].tolist().index("1.0")][:n].copy()
    hashes = [id_hash(f"{one}-0") for one in rows["transaction"][:n]]
    place = {key: at for at, key in enumerate(decision_ids(np.array(hashes, np.uint64), "fraud"))}
    was_explored = np.zeros(n, np.bool_)
    for key, bits, d, p in recorded(directory / "decisions" / "decisions.db"):
        at = place[key]
        raw[at] = np.int32(bits).view(np.float32)
        was_explored[at] = (d >> 16) & EXPLORED
        assert p == (SHARE if raw[at] >= cuts["block"] else None)
    blocked = raw >= cuts["block"]
    drawn = np.array([explored(one, SHARE) for one in hashes])
    assert np.array_equal(was_explored, blocked & drawn)
    amount = rows["features"][:n, rows["names"].tolist().index("TX_AMOUNT")]
    return Calls(rows["fraud"][:n], amount, raw, blocked, was_explored, cuts)


def recorded(path: Path) -> Iterator[tuple[int, int, int, float | None]]:
    """Yield id, bits of the raw score, decisions and propensity of what was decided."""
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE name GLOB 'd_[0-9]*'")
        for (name,) in tables.fetchall():
            yield from database.execute(f"SELECT id, raw, d, p FROM {name}")


def number(pattern: str, out: str) -> int:
    found = re.search(pattern, out, re.MULTILINE)
    assert found is not None, out
    return int(found[1].replace(",", ""))


def test_what_exploring_costs_and_buys_is_told(demo: Demo, tmp_path: Path) -> None:
    demo.until(lambda: "learnt of 1.0: recall" in demo.printed())
    demo.until(lambda: int(demo.matured()["n_decisions"]) >= ENOUGH)
    assert demo.typed("explore show").split() == ["model", "explored", "share", "fraud", "0.5"]
    report = demo.matured()
    # Nothing was reported of what was blocked, and what was explored stands for all of it.
    assert "left out" not in report["note"], report["note"]
    assert "allowed traffic only" not in report["note"], report["note"]
    out = demo.end()
    assert re.search(r"^errors +none", out, re.MULTILINE), out

    sent = calls(tmp_path, number(r"^calls +([\d,]+) in", out))
    n_passed, n_blocked = int(sent.passed.sum()), int(sent.blocked.sum())
    assert 0 < n_passed < n_blocked
    share = f"{n_passed / n_blocked:.1%}"
    assert f"{n_passed:,} of {n_blocked:,} that reach the blocking threshold ({share})" in out, out
    cost = f"{sent.values(sent.passed, True)} passed; and {sent.values(sent.passed, False)}"
    assert cost in out, out

    known = sent.first(number(r"of ([\d,]+) decisions as champion", out))
    figures = {(what, name): rest for what, name, *rest in FIGURES.findall(out)}
    assert len(figures) == 4, out
    p = n_passed / n_blocked
    for (what, name), (allowed, weighed, low, high, truth) in figures.items():
        said = known.raw >= known.cuts[name]
        of = known.fraud if what == "recall" else said
        score = recall_score if what == "recall" else precision_score
        true = score(known.fraud, said)
        assert float(truth) == pytest.approx(true, abs=AT_THE_END / of.sum() + 0.001), out
        rest = ~known.blocked
        if said[rest].any() or what == "recall":
            naive = score(known.fraud[rest], said[rest])
            n_rest = of[rest].sum()
            assert float(allowed) == pytest.approx(naive, abs=AT_THE_END / n_rest + 0.001), out
            assert naive < true - 0.1, "there is something to buy"
        else:
            assert allowed == "unknown"
        # The draw's standard error: one of n that reach the threshold is worth 1 / p or nothing.
        n_drawn = int((known.blocked & of).sum())
        part = 1 - true if what == "recall" else math.sqrt(true * (1 - true))
        error = part * math.sqrt(n_drawn * (1 - p) / p) / of.sum()
        # Labels that are wrong, or never come, shift it, too.
        within = 4 * error + UNNOTICED_SHARE + MISTAKEN_SHARE
        assert float(weighed) == pytest.approx(true, abs=within), out
        assert float(low) < float(weighed) < float(high), out
    gap = [
        abs(float(figures["recall", name][at]) - float(figures["recall", name][4]))
        for name in ("review", "block")
        for at in (0, 1)
    ]
    assert gap[1] < gap[0], out
    assert gap[3] < gap[2], out
