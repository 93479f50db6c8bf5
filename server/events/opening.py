"""Opens the events of the serving process as the settings say, and closes them."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from server.config import Settings
from server.config.load import is_loopback
from server.errors import StartError
from server.events.line_file import LineFile
from server.events.log import EventLog
from server.events.post import parse_target
from server.events.signature import read_secret
from server.events.webhook import Webhook
from server.lifecycle import Lifecycle, State

log = logging.getLogger(__name__)


def open_events(settings: Settings, lifecycle: Lifecycle) -> EventLog:
    """Return the log of events, not started; it also tells when the server cannot serve.

    Raises
    ------
    StartError
        The log file, the webhook's address or its secret cannot be used.
    """
    given = settings.events
    # As Prometheus names an instance.
    source = f"{socket.gethostname()}:{settings.sidecar.port}"
    events = EventLog(source, _open_file(given.log_file))
    if given.webhook_url:
        target = parse_target(given.webhook_url)
        if target.scheme == "http" and not is_loopback(target.host):
            log.warning("events.webhook_url: http:// sends events readable over the network")
        secret_file = given.webhook_secret_file
        events.post_to(
            Webhook(
                target,
                read_secret(Path(secret_file)) if secret_file else None,
                source,
                events.settle,
                timeout_s=given.webhook_timeout_s,
                attempts=given.webhook_attempts,
                capacity=given.queue,
            )
        )

    def tell(state: State) -> None:
        if state is State.NOT_READY:
            events.emit("server.not_ready", f"not ready: {lifecycle.read()[1]}")

    lifecycle.listen(tell)
    return events


def _open_file(path: str) -> LineFile | None:
    if not path:
        return None
    try:
        return LineFile(Path(path))
    except OSError as error:
        raise StartError(
            f"events.log_file: {path} cannot be opened: {error.strerror}; its folder has to be "
            "there, and writable"
        ) from None
