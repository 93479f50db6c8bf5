"""Stored features: what fell back, and how the stores are."""

from __future__ import annotations

from collections.abc import Iterator

from server.cli.lines import NONE, span
from server.console.parts.tables import Column, Row, table
from server.console.stores import Store, Stores
from server.console.traffic import Traffic
from server.console.tree import Child, Element, element
from server.console.words import count, rate

MARKS = {"ok": ("●", "good"), "degraded": ("▲", "warn")}
GONE = ("✖", "bad")
MAX_FALLBACKS = 40


def features(traffic: Traffic, stores: Stores) -> list[Element]:
    """Return both tables."""
    return [*_fallbacks(traffic), *_stores(stores)]


def _fallbacks(traffic: Traffic) -> Iterator[Element]:
    rows = [
        Row(
            [
                [one.group, element("small", f"{arm.model} {arm.version}")],
                one.source,
                rate(one.per_s),
                f"{one.per_call:.3g}" if arm.n_decided else NONE,
            ],
            f"{arm.model} {arm.arm} {one.group} {one.source}",
            "raised" if one.per_s else "",
        )
        for arm in traffic.arms
        for one in arm.fallbacks
    ]
    if not rows:
        yield element("p", "No feature can fall back.", class_="none", data_key="fallbacks")
        return
    columns = [
        Column("group"),
        Column("came from"),
        Column("values", "n"),
        Column("values a call", "n"),
    ]
    yield table(
        f"Values that fell back, over the last {span(traffic.share_span_s)}.",
        columns,
        rows[:MAX_FALLBACKS],
    )
    if len(rows) > MAX_FALLBACKS:
        yield element("p", f"{count(len(rows) - MAX_FALLBACKS, 'more row')}: /metrics")


def _stores(stores: Stores) -> Iterator[Element]:
    if not stores.tables:
        yield element("p", "No store of features is configured.", class_="none", data_key="stores")
        return
    columns = [Column("store"), Column("state"), Column("records", "n"), Column("detail", "wide")]
    yield table("Stores of features.", columns, [_store(one) for one in stores.tables])
    if stores.n_left_out:
        yield element("p", f"{count(stores.n_left_out, 'more table')}: scoregate status")
    for name, outcomes in stores.reads.items():
        if outcomes:
            said = ", ".join(f"{outcome} {n:,}" for outcome, n in outcomes.items())
            yield element(
                "p", f"Reads of {name} records since the start: {said}", class_="note",
                data_key=f"reads {name}",
            )  # fmt: skip


def _store(store: Store) -> Row:
    mark, kind = MARKS.get(store.state, GONE)
    detail: list[Child] = [store.detail or None, element("small", store.address)]
    if store.generation:
        detail.append(element("small", f"generation {store.generation}"))
    return Row(
        [
            [f"{store.table} {store.group}".strip(), element("small", store.kind)],
            element("span", f"{mark} {store.state}", class_=kind),
            f"{store.n_records:,}" if store.table == "batch" else NONE,
            detail,
        ],
        f"{store.table} {store.group}",
    )
