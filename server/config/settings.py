"""The tree of settings, with ranges, defaults and help.

Rules: a setting is a field here and nowhere else. Its flag, environment variable and help
follow from its place, its type and its `Meta`. Every setting has a default. A value that means
"none" is the empty string or the empty list, so that a flag or a variable can say it too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=0, le=65535)]
Address = Annotated[str, Meta(min_length=1, max_length=255)]

# `extra` of a Meta: a relative path that stands in a file counts from that file's directory.
PATH = {"path": True}

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
    max_message_bytes: Annotated[
        int, Meta(ge=1024, le=64 << 20, description="Largest request message, at both doors.")
    ] = 4 << 20
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections open at the same time.")
    ] = 10_000


class ControlSettings(Struct, frozen=True):
    """The control port: operators and their tools, over grpcio."""

    address: Annotated[
        Address, Meta(description="Address of the control port. It has no authentication.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the control port; 0 takes a free one.")] = (
        50052
    )
    max_workers: Annotated[
        int, Meta(ge=2, le=64, description="Threads that answer at the control port.")
    ] = 4
    insecure: Annotated[
        bool,
        Meta(
            description="Allow the control port on an address that other machines can reach, "
            "although anybody there may then operate the server."
        ),
    ] = False


class SidecarSettings(Struct, frozen=True):
    """The HTTP port: metrics and health."""

    address: Annotated[
        Address, Meta(description="Address of /metrics, /healthz and /readyz; 0.0.0.0 for all.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the sidecar; 0 takes a free one.")] = 9464


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
            description="Models to serve, as MODEL (its newest version) or MODEL@VERSION; "
            "empty: the newest version of every model in the repository."
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
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()
