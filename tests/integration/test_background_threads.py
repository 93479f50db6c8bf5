"""What a real server's threads may take of the processor, as the kernel says it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import grpc

from server.pb.scoregate.v1 import control_pb2
from server.priority import NICENESS
from tests.support.clients import control
from tests.support.receiver import Receiver
from tests.support.serving import MODEL, Serving


def ranks(pid: int) -> Counter[tuple[int, int]]:
    """Count the threads of a process by class and niceness."""
    return Counter(
        (os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread))
        for thread in (int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    )


def test_only_loads_are_idle_whatever_works_in_background(tmp_path: Path) -> None:
    # An idle thread that has the interpreter's lock, or a lock of ours, on a saturated machine
    # keeps it for seconds: a rollback must not wait for one that works all the time.
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    with Receiver() as receiver:
        settings = {
            "models": [f"{MODEL}@1"],
            "events.webhook_url": receiver.url,
            "events.webhook_secret_file": str(secret),
            "events.log_file": str(tmp_path / "events.jsonl"),
        }
        with Serving(settings=settings) as server, grpc.insecure_channel(server.control) as channel:
            control(channel).Deploy(
                control_pb2.DeployRequest(version="2", traffic_basis_points=1000), timeout=60
            )
            receiver.wait(1)
            found = ranks(server.process.pid)
    n_idle = sum(n for (policy, _), n in found.items() if policy == os.SCHED_IDLE)
    n_nice = found[os.SCHED_OTHER, NICENESS]
    # Drift, records, quality, events and the webhook; loads too, where a sandbox forbids idle.
    assert (n_idle, n_nice) in ((1, 5), (0, 6)), found
