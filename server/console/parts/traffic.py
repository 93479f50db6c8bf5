"""Traffic: the split of each model, what each arm gets, how long it takes; and what is decided."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

from server.cli.lines import NONE, span
from server.console.parts.tables import Column, Row, table
from server.console.svg import over_time, shares
from server.console.traffic import ArmTraffic, Traffic
from server.console.tree import Element, element
from server.console.words import count, duration, rate, share

# Fills that the style sheet knows: of arms, and of decisions from the mildest to the strictest.
ARM_KINDS = 6
MAX_STRICT = 3


def traffic(found: Traffic, default_model: str) -> list[Element]:
    """Return one block for each model."""
    if not found.arms:
        return [element("p", "Nothing serves: no plan is in force.", class_="none")]
    blocks = [
        _model(model, list(arms), found, is_default=model == default_model)
        for model, arms in groupby(found.arms, key=lambda arm: arm.model)
    ]
    errors = ", ".join(f"{code} {rate(per_s)}" for code, per_s in found.errors_per_s.items())
    blocks.append(element("p", f"Errors: {errors or 'none'}", class_="note", data_key="errors"))
    if found.n_left_out:
        blocks.append(element("p", f"{count(found.n_left_out, 'more arm')}: scoregate status"))
    return blocks


def _model(model: str, arms: list[ArmTraffic], found: Traffic, *, is_default: bool) -> Element:
    parts = ", ".join(f"{arm.arm} {_weight(arm)}" for arm in arms)
    said = ["default model"] if is_default else []
    if arms[0].explored:
        said.append(f"lets {share(arms[0].explored)} of its strictest decisions through, to learn")
    columns = [
        Column("arm"),
        Column("version"),
        Column("weight", "n"),
        Column("observed", "n"),
        Column("calls", "n"),
        Column("p50", "n"),
        Column("p99", "n"),
        Column("calls, 5 min", "draw"),
        Column("p99, 5 min", "draw"),
    ]
    return element(
        "article",
        element("h3", model, [element("small", word) for word in said]),
        shares(f"Split of {model}: {parts}", [(_kind(i), a.weight) for i, a in enumerate(arms)]),
        table(
            f"Arms of {model}. Calls and durations over the last {span(found.rate_span_s)}, "
            f"observed over {span(found.observed_span_s)}.",
            columns,
            [_arm(i, arm) for i, arm in enumerate(arms)],
        ),
        data_key=f"model {model}",
    )


def _weight(arm: ArmTraffic) -> str:
    return f"{100 * arm.weight:g} %"


def _kind(i: int) -> str:
    return f"arm{i % ARM_KINDS}"


def swatch(i: int) -> Element:
    """Return the fill of an arm in the bar above."""
    return element("i", class_=f"key {_kind(i)}", aria_hidden="true")


def _arm(i: int, arm: ArmTraffic) -> Row:
    calls = [point.calls_per_s for point in arm.points]
    p99 = [point.p99_us for point in arm.points]
    known = [us for us in p99 if not math.isnan(us)]
    calls_title = (
        f"Calls of {arm.arm} in the last five minutes: at least {rate(min(calls))}, at most "
        f"{rate(max(calls))}"
        if calls
        else "Calls: nothing to draw yet"
    )
    p99_title = (
        f"p99 of {arm.arm} in the last five minutes: at least {duration(min(known))}, at most "
        f"{duration(max(known))}"
        if known
        else "p99: nothing to draw yet"
    )
    return Row(
        [
            [swatch(i), arm.arm],
            [arm.version, element("small", arm.engine)],
            _weight(arm),
            share(arm.observed),
            rate(arm.calls_per_s),
            duration(arm.p50_us),
            duration(arm.p99_us),
            _drawn(over_time(calls_title, arm.points, calls), max(calls, default=math.nan), rate),
            _drawn(over_time(p99_title, arm.points, p99), max(known, default=math.nan), duration),
        ],
        arm.arm,
    )


def _drawn(line: Element, top: float, words: object) -> Element:
    said = words(top) if callable(words) else ""
    return element(
        "div", line, element("small", f"max {said}" if not math.isnan(top) else ""), class_="drawn"
    )


def decisions(found: Traffic) -> list[Element]:
    """Return what each arm decides."""
    names = list(dict.fromkeys(name for arm in found.arms for name in arm.decisions))
    if not names:
        return [element("p", "Nothing is decided: no plan is in force.", class_="none")]
    columns = [Column("arm"), Column("calls", "n"), *(Column(name, "n") for name in names)]
    columns += [Column("degraded", "n"), Column("shares", "draw")]
    caption = f"Shares of calls over the last {span(found.share_span_s)}."
    if len(names) > 1:
        caption += " Bars from left to right: " + ", ".join(names) + "."
    return [table(caption, columns, [_decided(arm, names) for arm in found.arms])]


def _decided(arm: ArmTraffic, names: list[str]) -> Row:
    parts = [
        (f"decision{min(i, MAX_STRICT)}", arm.decisions.get(name, 0.0))
        for i, name in enumerate(names)
    ]
    said = ", ".join(f"{name} {share(arm.decisions.get(name, math.nan))}" for name in names)
    drawn: Element | str = NONE
    if arm.n_decided:
        drawn = shares(f"Decisions of {arm.arm}: {said}", parts)
    cells = [
        [arm.arm, element("small", f"{arm.model} {arm.version}")],
        f"{arm.n_decided:,}",
        *(list(_decision(arm, name)) for name in names),
        share(arm.degraded),
        drawn,
    ]
    return Row(cells, f"{arm.model} {arm.arm}")


def _decision(arm: ArmTraffic, name: str) -> Iterator[Element | str]:
    if name not in arm.decisions:
        yield NONE
        return
    yield share(arm.decisions[name])
    if name in arm.thresholds:
        yield element("small", f"from {arm.thresholds[name]:.3g}")
