"""Settings of drift monitoring and of the events that it and rollouts give rise to."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.config.kinds import PATH


class DriftWatchSettings(Struct, frozen=True):
    """Drift: how much is looked at, and how often."""

    enabled: Annotated[
        bool, Meta(description="Sample scored rows and compare them with the bundle's reference.")
    ] = True
    rows_per_s: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="Rows a second that are sampled of each version; with less traffic, all.",
        ),
    ] = 20.0
    window_rows: Annotated[
        int, Meta(ge=600, le=100_000, description="Rows of the fast window.")
    ] = 5000
    min_span_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Time that the fast window has to span before it says anything: less is a "
            "moment, not a trend.",
        ),
    ] = 600.0
    interval_s: Annotated[
        float, Meta(ge=0.1, le=86_400, description="Seconds between two evaluations.")
    ] = 30.0
    drain_s: Annotated[
        float, Meta(ge=0.01, le=60, description="Seconds between two looks at the loops' rings.")
    ] = 0.5
    ring_bytes: Annotated[
        int,
        Meta(ge=65_536, le=1 << 30, description="Memory of each loop's ring of sampled rows."),
    ] = 1 << 20
    slow_span_s: Annotated[
        float,
        Meta(
            ge=60,
            le=31_536_000,
            description="Time that the slow window covers; a retrain is only asked for when it "
            "agrees with the fast one.",
        ),
    ] = 86_400.0
    pane_s: Annotated[
        float,
        Meta(ge=1, le=3600, description="Steps in which the slow window lets go of old rows."),
    ] = 1800.0
    aggregate: Annotated[
        Literal["max", "mean"],
        Meta(description="What the drift score is: the largest of the features', or their mean."),
    ] = "max"


class EventSettings(Struct, frozen=True):
    """Events: what is told to whom when drift, pipelines or rollouts need somebody."""

    webhook_url: Annotated[
        str,
        Meta(
            description="Where each event is posted to, as JSON: http://... or https://...; empty: "
            "nowhere."
        ),
    ] = ""
    webhook_secret_file: Annotated[
        str,
        Meta(
            description="File of the secret that signs what is posted (HMAC-SHA256); empty: not "
            "signed.",
            extra=PATH,
        ),
    ] = ""
    webhook_timeout_s: Annotated[
        float, Meta(gt=0, le=60, description="Seconds that one attempt may take.")
    ] = 5.0
    webhook_attempts: Annotated[
        int, Meta(ge=1, le=100, description="Attempts before an event is given up, ever rarer.")
    ] = 8
    queue: Annotated[
        int, Meta(ge=1, le=100_000, description="Events that may wait; one more drops the oldest.")
    ] = 1000
    log_file: Annotated[
        str,
        Meta(
            description="File that each event is appended to, as one JSON object a line; empty: "
            "none.",
            extra=PATH,
        ),
    ] = ""
