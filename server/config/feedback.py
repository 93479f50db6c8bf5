"""Settings of outcomes and quality."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from server.config.kinds import PATH


class FeedbackSettings(Struct, frozen=True):
    """Decisions that wait for their outcomes, and how well the models did."""

    enabled: Annotated[
        bool, Meta(description="Record decisions, take outcomes, and measure quality.")
    ] = True
    directory: Annotated[
        str,
        Meta(
            description="Directory of recorded decisions; each server needs its own. Empty: beside "
            "the journal; where that is none, nothing is recorded.",
            extra=PATH,
        ),
    ] = ""
    records_per_s: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="Decisions a second that are recorded of each version; with more traffic, "
            "a sample by request id. Scores over the lowest threshold are recorded always.",
        ),
    ] = 1000.0
    ring_records: Annotated[
        int,
        Meta(ge=1024, le=1 << 24, description="Decisions that wait in each loop's memory."),
    ] = 65_536
    drain_s: Annotated[
        float, Meta(ge=0.01, le=60, description="Seconds between two writes of decisions.")
    ] = 0.5
    keep_days: Annotated[
        float, Meta(gt=0, le=3650, description="Days that decisions are kept for.")
    ] = 90.0
    keep_bytes: Annotated[
        int,
        Meta(
            ge=16 << 20,
            le=1 << 44,
            description="Bytes of decisions that are kept: the oldest make room.",
        ),
    ] = 2 << 30
    maturity_s: Annotated[
        float,
        Meta(
            gt=0,
            le=31_536_000,
            description="Age from which on a decision without an outcome counts as a good one.",
        ),
    ] = 30 * 86_400.0
    window_s: Annotated[
        float,
        Meta(
            gt=0,
            le=315_360_000,
            description="Time before that age whose decisions quality is measured on.",
        ),
    ] = 30 * 86_400.0
    interval_s: Annotated[
        float, Meta(ge=0.1, le=86_400, description="Seconds between two measurements of quality.")
    ] = 60.0
    unseen_decisions: Annotated[
        tuple[str, ...],
        Meta(
            description="Decisions after which no outcome can be seen, because the transaction "
            "does not happen; empty: each model's strictest."
        ),
    ] = ()
