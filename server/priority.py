"""How urgent a thread is: loops may go first, and work in background takes what nobody else wants.

To be merely nice is not enough beside a loop: a nice thread that runs keeps a loop that wakes up
waiting until the next tick of the scheduler, 4 ms on many kernels. An idle one (SCHED_IDLE) makes
way at once. On a core that is saturated it gets next to nothing: whoever waits for it, or for the
interpreter's lock while it has that, waits long there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from server.errors import StartError

FALLBACK_NICENESS = 10
REALTIME_PRIORITY = 1  # the lowest: the kernel's own threads go before


def stand_back() -> None:
    """Make the calling thread idle; nice, where a sandbox forbids it. It cannot be undone."""
    # On Linux a thread id is what the calls take.
    thread = threading.get_native_id()
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        os.setpriority(os.PRIO_PROCESS, thread, FALLBACK_NICENESS)


def come_first(threads: Iterable[int]) -> None:
    """Let threads, by their kernel's ids, go before every other one (SCHED_RR).

    A loop that never rests would leave the others of its core the twentieth that the kernel keeps
    for them (sched_rt_runtime_us).

    Raises
    ------
    StartError
        This process may not.
    """
    # Threads that they start are like any other.
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(REALTIME_PRIORITY))
        except OSError as error:
            raise StartError(
                f"fast.realtime: the loops cannot be given real-time priority ({error.strerror}): "
                "grant CAP_SYS_NICE (systemd: LimitRTPRIO=1), or switch the setting off"
            ) from None
