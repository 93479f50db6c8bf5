"""The tree of settings, with ranges, defaults and help.

Rules: a setting is a field here and nowhere else. Its flag, environment variable and help
follow from its place, its type and its `Meta`. Every setting has a default. A value that means
"none" is the empty string or the empty list, so that a flag or a variable can say it too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.config.feedback import FeedbackSettings
from server.config.kinds import PATH
from server.config.monitoring import DriftWatchSettings, EventSettings

Port = Annotated[int, Meta(ge=0, le=65535)]
Address = Annotated[str, Meta(min_length=1, max_length=255)]


MODEL_PATTERN = r"^[^@/\s]+(@[^@/\s]+)?$"


class FastSettings(Struct, frozen=True):
    """The data port: scoring over HTTP/2 without Python on the way."""

    address: Annotated[
        Address, Meta(description="Address that the fast door listens on; 0.0.0.0 for all.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the fast door; 0 takes a free one.")] = (
        50051
    )
    unix_socket: Annotated[
        str,
        Meta(
            max_length=107,  # sun_path has 108 bytes, NUL included
            description="Path of a Unix socket that the fast door listens on too; empty: none.",
            extra=PATH,
        ),
    ] = ""
    loops: Annotated[
        int, Meta(ge=1, le=64, description="Loop threads; each wants a core of its own.")
    ] = 1
    spin_us: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Microseconds that an idle loop polls before it sleeps. Lowers latency, "
            "costs a whole core: only where the loop has one to itself.",
        ),
    ] = 0
    realtime: Annotated[
        bool,
        Meta(
            description="Let the loops go before every other thread of the machine (SCHED_RR): for "
            "cores that they share with the rest of the server. Needs CAP_SYS_NICE or an rtprio "
            "limit; not together with spin_us."
        ),
    ] = False
    max_message_bytes: Annotated[
        int, Meta(ge=1024, le=64 << 20, description="Largest request message, at both doors.")
    ] = 4 << 20
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections open at the same time.")
    ] = 10_000


class ControlSettings(Struct, frozen=True):
    """The control port: operators and their tools, over grpcio."""

    address: Annotated[
        Address,
        Meta(
            description="Address of the control port; one that other machines can reach needs "
            "tokens and TLS."
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the control port; 0 takes a free one.")] = (
        50052
    )
    max_workers: Annotated[
        int,
        Meta(
            ge=2,
            le=64,
            description="Threads that answer at the control port, beside those of watches (16 at "
            "most, made when needed).",
        ),
    ] = 4
    tokens_file: Annotated[
        str,
        Meta(
            description="File of access tokens, as `scoregate token` writes it; empty: whoever "
            "reaches the control port may do everything.",
            extra=PATH,
        ),
    ] = ""
    tls_certificate_file: Annotated[
        str,
        Meta(
            description="Certificate chain of the control port, as PEM; empty: no TLS.", extra=PATH
        ),
    ] = ""
    tls_key_file: Annotated[
        str, Meta(description="Key of that certificate, as PEM.", extra=PATH)
    ] = ""
    tls_client_ca_file: Annotated[
        str,
        Meta(
            description="Authorities of client certificates, as PEM, which are then asked for; "
            "empty: none are.",
            extra=PATH,
        ),
    ] = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Allow the control port on an address that other machines can reach "
            "without tokens or TLS, although anybody there may then operate the server."
        ),
    ] = False


class SidecarSettings(Struct, frozen=True):
    """The HTTP port: metrics, health and the console."""

    address: Annotated[
        Address,
        Meta(description="Address of /metrics, /healthz, /readyz and /console; 0.0.0.0 for all."),
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the sidecar; 0 takes a free one.")] = 9464
    console: Annotated[
        bool, Meta(description="Show the console, a read-only page for people, at /console.")
    ] = True


class FeatureSettings(Struct, frozen=True):
    """Stored features: where their records are."""

    directory: Annotated[
        str,
        Meta(
            description="Directory of the embedded store: online/ and batch/ tables, as "
            "`scoregate features load` writes them; empty: none.",
            extra=PATH,
        ),
    ] = ""
    online: Annotated[
        Literal["none", "lmdb", "redis"],
        Meta(
            description="Where online records are read: nowhere, in the directory, or in Redis "
            "(the redis settings)."
        ),
    ] = "none"
    poll_s: Annotated[
        float,
        Meta(
            ge=0.05,
            le=3600,
            description="Seconds between two looks for new batch generations, and for a store "
            "that was missing.",
        ),
    ] = 1.0


class RedisSettings(Struct, frozen=True):
    """The Redis (or Valkey) that online records are read from."""

    address: Annotated[
        str, Meta(min_length=1, description="HOST:PORT, or unix:PATH of a Unix socket.")
    ] = "127.0.0.1:6379"
    replica: Annotated[
        str,
        Meta(description="Address of a replica that slow reads are asked of too; empty: none."),
    ] = ""
    hedge_after_us: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Microseconds after which a read is asked of the replica too; 0: never.",
        ),
    ] = 0
    username: Annotated[str, Meta(description="Name to authenticate with; empty: the default.")] = (
        ""
    )
    password_file: Annotated[
        str,
        Meta(
            description="File that holds the password; empty: none is sent. A file, because "
            "flags and variables can be read by others.",
            extra=PATH,
        ),
    ] = ""
    database: Annotated[int, Meta(ge=0, le=65535, description="Number of the database.")] = 0
    key_prefix: Annotated[
        str,
        Meta(max_length=64, description="What stands before every key; as the writers have it."),
    ] = "scoregate:"
    tls: Annotated[bool, Meta(description="Encrypt, and verify the server's certificate.")] = False
    tls_ca_file: Annotated[
        str,
        Meta(description="Authorities to trust, as PEM; empty: the system's.", extra=PATH),
    ] = ""
    tls_certificate_file: Annotated[
        str, Meta(description="Certificate of this client, as PEM; empty: none.", extra=PATH)
    ] = ""
    tls_key_file: Annotated[
        str, Meta(description="Key of that certificate, as PEM.", extra=PATH)
    ] = ""
    tls_server_name: Annotated[
        str, Meta(description="Name that the certificate must have; empty: the address's host.")
    ] = ""
    connect_timeout_ms: Annotated[
        int, Meta(ge=1, le=60_000, description="Milliseconds until a connection has to stand.")
    ] = 1000
    stall_us: Annotated[
        int,
        Meta(
            ge=100,
            le=60_000_000,
            description="Microseconds without a byte, while answers are owed, after which the "
            "connection is given up: four read budgets.",
        ),
    ] = 20_000
    cache_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 34,
            description="Memory, per loop, for records that were read before; 0: no cache.",
        ),
    ] = 0
    cache_ttl_ms: Annotated[
        int, Meta(ge=0, le=86_400_000, description="Milliseconds that such a record is used.")
    ] = 1000
    breaker_window_ms: Annotated[
        int, Meta(ge=10, le=600_000, description="Window over which failed reads are counted.")
    ] = 1000
    breaker_min_reads: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Reads in the window before the breaker opens.")
    ] = 20
    breaker_failure_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of failed reads at which the breaker opens.")
    ] = 0.5
    breaker_cool_off_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=600_000,
            description="Milliseconds until an open breaker tries one read; doubles up to ten "
            "times as long while those fail.",
        ),
    ] = 1000


class RolloutSettings(Struct, frozen=True):
    """Changes of what serves: what is remembered, and for how long."""

    journal: Annotated[
        str,
        Meta(
            description="File of the journal of changes, which a restart resumes from; each "
            "server needs its own. Empty: .scoregate/journal.db in the repository; none: nothing "
            "is remembered.",
            extra=PATH,
        ),
    ] = ""
    resume: Annotated[
        bool,
        Meta(description="Start with the journal's last plan; otherwise with --models, anew."),
    ] = True
    versions: Annotated[
        str,
        Meta(
            pattern=r"^(serving|all|latest:[1-9][0-9]{0,2})$",
            description="Versions of the served models that are kept in memory, ready to be "
            "deployed: serving (no other), latest:N, or all.",
        ),
    ] = "serving"
    poll_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds between two looks for new versions in the repository; 0: only "
            "when asked.",
        ),
    ] = 0.0
    keep_plans: Annotated[
        int,
        Meta(ge=0, le=100, description="Earlier plans whose models stay in memory, to go back to."),
    ] = 3
    keep_s: Annotated[float, Meta(ge=0, le=31_536_000, description="Seconds that they do.")] = (
        3600.0
    )


class DrainSettings(Struct, frozen=True):
    """How the server ends."""

    grace_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds that calls in flight have to finish after SIGTERM or SIGINT.",
        ),
    ] = 10.0


class LogSettings(Struct, frozen=True):
    """What the server says on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level logged.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="Lines for people, or one JSON object each.")
    ] = "text"


class Settings(Struct, frozen=True):
    """Everything that `scoregate serve` can be told."""

    repository: Annotated[
        str,
        Meta(
            min_length=1,
            description="Model repository: a directory of <model>/<version>/ bundles.",
            extra=PATH,
        ),
    ] = "models"
    models: Annotated[
        tuple[Annotated[str, Meta(pattern=MODEL_PATTERN)], ...],
        Meta(
            description="Models to serve at first, as MODEL (its newest version) or "
            "MODEL@VERSION; empty: the newest version of every model in the repository. Later "
            "starts resume from the journal."
        ),
    ] = ()
    default_model: Annotated[
        str,
        Meta(
            description="Model that answers requests which name none; "
            "empty: the one model, where there is only one."
        ),
    ] = ""
    ready_file: Annotated[
        str,
        Meta(
            description="File to write, as JSON with the addresses and the process id, once the "
            "server is ready; empty: none.",
            extra=PATH,
        ),
    ] = ""
    fast: FastSettings = FastSettings()
    control: ControlSettings = ControlSettings()
    sidecar: SidecarSettings = SidecarSettings()
    features: FeatureSettings = FeatureSettings()
    redis: RedisSettings = RedisSettings()
    rollout: RolloutSettings = RolloutSettings()
    drift: DriftWatchSettings = DriftWatchSettings()
    events: EventSettings = EventSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()
