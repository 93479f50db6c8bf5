"""`compare A.json B.json`: what changed, and what is only noise.

Rules
-----
* A figure is a handful of repetitions. Its change is the ratio of the medians, B to A, with an
  interval: the middle 99 % of that ratio over bootstrap resamples of both files' repetitions.
* The verdict is "faster" or "slower" (better or worse) only where the whole interval lies beyond
  the smallest change that is worth a word, 3 % unless told; else "no difference shown", which
  does not say that there is none.
* With fewer than three repetitions there is no noise to be seen, so nothing is shown, but for
  instruction counts, which repeat exactly.
* Absolute figures of two machines say nothing about the code: there, only ratios are judged.

The bootstrap of so few values is rough: its intervals are too narrow by a little, for which 99 %
and the smallest change make up. Tests hold the share of false alarms down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from bench import results
from bench.errors import ResultError
from bench.quantities import better

N_RESAMPLES = 4000
LEVEL = 0.99
MIN_EFFECT = 0.03
MIN_REPETITIONS = 3
EXACT = "instructions"  # figures that repeat: one value is enough

FASTER, SLOWER, NOTHING = "faster", "slower", "no difference shown"
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """One figure of two files.

    Attributes
    ----------
    change
        Ratio of medians, B to A.
    low, high
        Its 99 % interval.
    verdict
        "faster" (better), "slower" (worse), "no difference shown", or "not judged".
    note
        Why it is not judged, or what to know.
    """

    name: str
    a: float
    b: float
    change: float
    low: float
    high: float
    verdict: str
    note: str = ""


def interval(
    a: Sequence[float], b: Sequence[float], *, n: int = N_RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the ratio of medians, B to A, over bootstrap resamples.

    Parameters
    ----------
    a, b
        Repetitions, positive.
    n, level
        Resamples, and the share of their ratios that the interval holds.

    Returns
    -------
    low, high
        The same for the same input: the resamples are seeded.
    """
    rng = np.random.default_rng(20_240_229)
    ours, theirs = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    top = np.median(rng.choice(theirs, size=(n, len(theirs))), axis=1)
    bottom = np.median(rng.choice(ours, size=(n, len(ours))), axis=1)
    tails = (1 - level) / 2
    low, high = np.quantile(top / bottom, [tails, 1 - tails])
    return float(low), float(high)


def judge(
    name: str,
    a: Sequence[float],
    b: Sequence[float],
    *,
    min_effect: float = MIN_EFFECT,
    same_machine: bool = True,
) -> Verdict:
    """Judge one figure."""
    first, second = median(a), median(b)
    if first == second == 0:
        return Verdict(name, 0.0, 0.0, 1.0, 1.0, 1.0, NOTHING)
    if min(*a, *b) <= 0:
        # A count that was or became 0: there is no ratio; any growth of errors is worth a word.
        return _from_zero(name, a, b)
    change = second / first
    direction = better(name)
    if direction is None:
        return Verdict(name, first, second, change, change, change, NOT_JUDGED, "a circumstance")
    if EXACT in name:
        low = high = change
    elif min(len(a), len(b)) < MIN_REPETITIONS:
        note = f"fewer than {MIN_REPETITIONS} repetitions"
        return Verdict(name, first, second, change, change, change, NOTHING, note)
    else:
        low, high = interval(a, b)
    if not same_machine and not is_relative(name):
        note = "another machine: only ratios are judged"
        return Verdict(name, first, second, change, low, high, NOT_JUDGED, note)
    verdict = NOTHING
    if high < 1 - min_effect:
        verdict = FASTER if direction == "lower" else SLOWER
    elif low > 1 + min_effect:
        verdict = SLOWER if direction == "lower" else FASTER
    return Verdict(name, first, second, change, low, high, verdict)


def _from_zero(name: str, a: Sequence[float], b: Sequence[float]) -> Verdict:
    first, second = median(a), median(b)
    nan = float("nan")
    if better(name) == "lower" and min(b) > max(a) and "errors" in name:
        return Verdict(name, first, second, nan, nan, nan, SLOWER, "was lower in all repetitions")
    if better(name) == "lower" and max(b) < min(a) and "errors" in name:
        return Verdict(name, first, second, nan, nan, nan, FASTER, "was higher in all repetitions")
    note = "at or below 0: there is no ratio"
    return Verdict(name, first, second, nan, nan, nan, NOTHING, note)


def is_relative(name: str) -> bool:
    """Whether a figure is a ratio within one run, which travels between machines."""
    whole = name.rsplit(".", 1)[-1]
    return "ratio" in whole or "share_of" in whole or "_to_" in whole or EXACT in whole


def compare(
    a: dict[str, Any], b: dict[str, Any], *, min_effect: float = MIN_EFFECT
) -> list[Verdict]:
    """Judge every figure that both result files hold.

    Raises
    ------
    ResultError
        They hold no figure in common.
    """
    ours, theirs = results.spreads(a), results.spreads(b)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ResultError("the two files hold no figure in common; are they of one scenario?")
    keys = ("processor", "cores", "kernel")
    same = all(a["machine"].get(key) == b["machine"].get(key) for key in keys)
    return [
        judge(name, ours[name], theirs[name], min_effect=min_effect, same_machine=same)
        for name in shared
    ]


def table(verdicts: Sequence[Verdict], *, everything: bool = False) -> str:
    """Lay the verdicts out for a terminal; without the circumstances unless `everything`."""
    head = f"{'figure':46}{'A':>12}{'B':>12}{'B/A':>9}   {'99 % interval':16}verdict"
    lines = [head]
    for v in verdicts:
        if v.verdict == NOT_JUDGED and v.note == "a circumstance" and not everything:
            continue
        known = v.change == v.change  # not NaN
        span = f"{v.low:.3f} to {v.high:.3f}" if known else "-"
        change = f"{v.change:9.3f}" if known else f"{'-':>9}"
        note = f" ({v.note})" if v.note else ""
        lines.append(f"{v.name:46}{v.a:12.5g}{v.b:12.5g}{change}   {span:16}{v.verdict}{note}")
    counts = {word: sum(v.verdict == word for v in verdicts) for word in (FASTER, SLOWER, NOTHING)}
    lines += ["", ", ".join(f"{n} {word}" for word, n in counts.items())]
    return "\n".join(lines)
