"""When the thread that gives memory back to the system asks malloc to do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from fastpath.trimmer import FLOOD_BYTES, LAST_BYTES, WORTH_BYTES, Trimmer


class Looks:
    """Gives one figure per look, the last one for ever, and says when all were seen."""

    def __init__(self, figures: list[int]) -> None:
        self.figures = figures
        self.seen = threading.Event()

    def __call__(self) -> int:
        if len(self.figures) > 1:
            return self.figures.pop(0)
        self.seen.set()
        return self.figures[0]


def n_trims(figures: list[int], enough: Callable[[Trimmer], bool]) -> int:
    looks = Looks(figures)
    trimmer = Trimmer(looks, period_s=0.002)
    trimmer.start()
    assert looks.seen.wait(20)
    end = time.monotonic() + 20
    while not enough(trimmer):
        assert time.monotonic() < end, "it never trimmed"
        time.sleep(0.002)
    time.sleep(0.02)  # some more looks at a figure that stands still
    trimmer.stop()
    trimmer.stop()
    return trimmer.n_trims


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param([0, 0, 0], 0, id="nothing returned"),
        pytest.param([0, LAST_BYTES - 1], 0, id="too little"),
        pytest.param([0, LAST_BYTES], 1, id="a little, at the end"),
        pytest.param([0, WORTH_BYTES, 2 * WORTH_BYTES], 1, id="once after a flood"),
        pytest.param([0, WORTH_BYTES // 2, WORTH_BYTES, WORTH_BYTES + 1], 1, id="a rest is none"),
        pytest.param(
            [0, *range(FLOOD_BYTES // 2, 4 * FLOOD_BYTES + 1, FLOOD_BYTES // 2)],
            4,
            id="a steady stream, each eight megabytes",
        ),
    ],
)
def test_memory_is_trimmed_when_it_is_worth_a_walk(figures: list[int], expected: int) -> None:
    assert n_trims(figures, lambda t: t.n_trims >= expected) == expected


def test_it_ends_when_it_never_ran() -> None:
    Trimmer(lambda: 0).stop()
