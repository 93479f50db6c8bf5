"""How urgent a thread is: work in background takes only what nobody else wants of the processor.

To be merely nice is not enough beside a loop: a nice thread that runs keeps a loop that wakes up
waiting until the next tick of the scheduler, 4 ms on many kernels. An idle one (SCHED_IDLE) makes
way at once. On a core that is saturated it gets next to nothing: whoever waits for it, or for the
interpreter's lock while it has that, waits long there.
"""

from __future__ import annotations

import os
import threading

FALLBACK_NICENESS = 10


def stand_back() -> None:
    """Make the calling thread idle; nice, where a sandbox forbids it. It cannot be undone."""
    # On Linux a thread id is what the calls take.
    thread = threading.get_native_id()
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        os.setpriority(os.PRIO_PROCESS, thread, FALLBACK_NICENESS)
