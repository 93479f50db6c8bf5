"""The circuit breaker against a model that keeps every read, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastpath.breaker import Breaker, BreakerSpec
from fastpath.errors import StoreError

MS = 1_000_000
SPEC = BreakerSpec(
    window_ms=100, min_reads=4, failure_share=0.5, cool_off_ms=50, max_cool_off_ms=150
)
CLOSED, HALF_OPEN, OPEN = 0, 1, 2


def failed_often(breaker: Breaker, now_ns: int, n: int = SPEC.min_reads) -> None:
    for ticket in [breaker.admit(now_ns) for _ in range(n)]:
        assert ticket > 0
        breaker.settle(ticket, True, now_ns)


def test_opens_refuses_and_closes_after_a_good_probe() -> None:
    breaker = Breaker(SPEC, seed=1)
    failed_often(breaker, 0)
    assert (breaker.state, breaker.n_opened) == (OPEN, 1)
    assert 0.75 * 50 * MS <= breaker.retry_ns <= 50 * MS
    assert breaker.admit(breaker.retry_ns - 1) == 0
    probe = breaker.admit(breaker.retry_ns)
    assert probe > 0
    assert breaker.state == HALF_OPEN
    assert breaker.admit(breaker.retry_ns) == 0, "one probe at a time"
    breaker.settle(probe, False, breaker.retry_ns)
    assert (breaker.state, breaker.window) == (CLOSED, (0, 0))


def test_a_failed_probe_doubles_the_cool_off_up_to_its_maximum() -> None:
    breaker = Breaker(SPEC, seed=2)
    failed_often(breaker, 0)
    for longest_ms in (100, 150, 150):
        now_ns = breaker.retry_ns
        breaker.settle(breaker.admit(now_ns), True, now_ns)
        assert 0.75 * longest_ms * MS <= breaker.retry_ns - now_ns <= longest_ms * MS


def test_a_probe_that_nobody_wanted_lets_the_next_read_be_the_probe() -> None:
    breaker = Breaker(SPEC)
    failed_often(breaker, 0)
    now_ns = breaker.retry_ns
    breaker.release(breaker.admit(now_ns))
    assert breaker.state == HALF_OPEN
    assert breaker.admit(now_ns) > 0


def test_reads_admitted_before_it_opened_do_not_judge_the_probe() -> None:
    breaker = Breaker(SPEC)
    old = breaker.admit(0)
    failed_often(breaker, 0)
    probe = breaker.admit(breaker.retry_ns)
    breaker.settle(old, False, breaker.retry_ns)
    assert breaker.state == HALF_OPEN
    breaker.settle(probe, True, breaker.retry_ns)
    assert breaker.state == OPEN


def test_switched_off_it_never_opens() -> None:
    breaker = Breaker(SPEC._replace(enabled=False))
    failed_often(breaker, 0, 1000)
    assert breaker.state == CLOSED


@pytest.mark.parametrize(
    "change",
    [
        {"window_ms": 9},
        {"min_reads": 0},
        {"failure_share": 0.0},
        {"failure_share": 1.1},
        {"failure_share": float("nan")},
        {"cool_off_ms": 0},
        {"max_cool_off_ms": 49},
    ],
)
def test_a_spec_out_of_range_names_its_field(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=next(iter(change))):
        Breaker(SPEC._replace(**change))


class AgainstModel(RuleBasedStateMachine):
    """Any order of reads, ends and pauses; the model keeps a list instead of buckets."""

    @initialize(seed=st.integers(0, 2**64 - 1))
    def begin(self, seed: int) -> None:
        self.breaker = Breaker(SPEC, seed)
        self.now_ns = 10**15
        self.state = CLOSED
        self.ends: list[tuple[int, bool]] = []  # (bucket, failed)
        self.cool_off_ms = SPEC.cool_off_ms
        self.retry_ns = 0
        self.era = 0
        self.waiting: list[tuple[int, int]] = []  # (ticket, era)
        self.probing = False

    @rule(ms=st.sampled_from([0, 1, 7, 10, 40, 100, 1000]))
    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS

    @rule()
    def admit(self) -> None:
        admitted = self.state == CLOSED
        if self.state == OPEN and self.now_ns >= self.retry_ns:
            self.state, self.probing = HALF_OPEN, False
            self.era += 1
        if self.state == HALF_OPEN and not self.probing:
            admitted = self.probing = True
        assert self.breaker.refuses(self.now_ns) is not admitted
        ticket = self.breaker.admit(self.now_ns)
        assert (ticket > 0) == admitted
        if admitted:
            self.waiting.append((ticket, self.era))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 10**6), failed=st.booleans())
    def settle(self, which: int, failed: bool) -> None:
        ticket, era = self.waiting.pop(which % len(self.waiting))
        self.breaker.settle(ticket, failed, self.now_ns)
        if era != self.era:
            return
        if self.state == HALF_OPEN:
            self.probing = False
            if failed:
                self.cool_off_ms = min(2 * self.cool_off_ms, SPEC.max_cool_off_ms)
                self.open()
            else:
                self.state, self.ends, self.cool_off_ms = CLOSED, [], SPEC.cool_off_ms
                self.era += 1
            return
        newest = self.now_ns // (10 * MS)
        self.ends = [(b, f) for b, f in self.ends if b > newest - 10] + [(newest, failed)]
        n_failed = sum(f for _, f in self.ends)
        if failed and len(self.ends) >= SPEC.min_reads and n_failed * 2 >= len(self.ends):
            self.open()

    def open(self) -> None:
        self.state = OPEN
        self.era += 1
        self.retry_ns = self.breaker.retry_ns
        longest_ns = self.cool_off_ms * MS
        assert 0.75 * longest_ns - 1 <= self.retry_ns - self.now_ns <= longest_ns

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 10**6))
    def release(self, which: int) -> None:
        ticket, era = self.waiting.pop(which % len(self.waiting))
        self.breaker.release(ticket)
        if era == self.era and self.state == HALF_OPEN:
            self.probing = False

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state == self.state
        if self.state == CLOSED and self.ends:
            assert self.breaker.window == (len(self.ends), sum(f for _, f in self.ends))


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=60, derandomize=True)
