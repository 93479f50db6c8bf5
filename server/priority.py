"""How urgent a thread is: loops may go first, and work in background takes what nobody else wants.

To be merely nice is not enough beside a loop: a nice thread that runs keeps a loop that wakes up
waiting until the next tick of the scheduler, 4 ms on many kernels. An idle one (SCHED_IDLE) makes
way at once. On a core that is saturated it gets next to nothing: whoever waits for it, or for the
interpreter's lock while it has that, waits for seconds there. So only loads are idle: they are
rare, and long. What works in background all the time is nice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from server.errors import StartError

NICENESS = 10
REALTIME_PRIORITY = 1  # the lowest: the kernel's own threads go before


def be_nice() -> None:
    """Give the calling thread a tenth of what others get. It cannot be undone."""
    # Of this thread alone: on Linux a thread id is what the call takes.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def stand_back() -> None:
    """Make the calling thread idle; nice, where a sandbox forbids it. It cannot be undone."""
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        be_nice()


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
