"""A server's memory and CPU while a load runs, sampled from /proc a few times a second."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import numpy as np

from bench.processes import ServerDiedError
from bench.targets import Target

SAMPLES = 400  # per run, at most


class Watch:
    """Samples a server within a `with` block; knows nothing of a server without a process id.

    Attributes
    ----------
    died
        Whether the process ended meanwhile.
    """

    def __init__(self, target: Target, expected_s: float) -> None:
        self._target = target
        self._every_s = max(0.1, expected_s / SAMPLES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="bench-watch", daemon=True)
        self._samples: list[tuple[float, int, int]] = []  # seconds, CPU ns, resident bytes
        self.died = False

    def _take(self) -> None:
        try:
            spent, resident = self._target.cpu_ns(), self._target.resident_bytes()
        except ServerDiedError:
            self.died = True
            self._stop.set()
            return
        if spent is not None and resident is not None:
            self._samples.append((time.monotonic() - self._started, spent, resident))

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            self._take()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._take()
        if self._samples:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._take()

    @property
    def cpu_ns(self) -> int | None:
        """CPU that the server spent within the block."""
        return self._samples[-1][1] - self._samples[0][1] if len(self._samples) > 1 else None

    def quantities(self) -> dict[str, float]:
        """Return what is known of the memory.

        The slope is a least-squares line through the last two thirds: the first third belongs to
        buffers and pools that grow to their working size once.
        """
        if len(self._samples) < 2:
            return {}
        seconds, _, resident = np.array(self._samples, dtype=np.float64).T
        found = {
            "rss_before_bytes": float(resident[0]),
            "rss_after_bytes": float(resident[-1]),
        }
        late = seconds >= seconds[-1] / 3
        if late.sum() >= 4:
            slope = float(np.polyfit(seconds[late], resident[late], 1)[0])
            grown = slope * float(seconds[-1] - seconds[late][0])
            found["rss_slope_bytes_per_s"] = slope
            found["rss_growth_share"] = grown / float(resident[late][0])
        return found

    def series(self) -> dict[str, list[float]]:
        """Return the samples as columns: seconds, share of a core, resident bytes."""
        if len(self._samples) < 2:
            return {}
        seconds, spent, resident = np.array(self._samples, dtype=np.float64).T
        share = np.diff(spent) / 1e9 / np.maximum(np.diff(seconds), 1e-9)
        return {
            "seconds": [round(float(x), 3) for x in seconds[1:]],
            "core_share": [round(float(x), 4) for x in share],
            "rss_bytes": [float(x) for x in resident[1:]],
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `json`."""
        return {"died": self.died, **self.series()}
