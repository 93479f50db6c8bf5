"""Threads that go first, and threads that stand back: what the kernel says of them afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from server.errors import StartError
from server.priority import NICENESS, be_nice, come_first, stand_back


def on_a_thread(work: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def waiting_thread() -> Iterator[int]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert thread.native_id is not None
    try:
        yield thread.native_id
    finally:
        end.set()
        thread.join()


def test_a_thread_that_stands_back_is_idle() -> None:
    def work() -> int:
        stand_back()
        return os.sched_getscheduler(0)

    assert on_a_thread(work) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # that thread alone


def test_a_nice_thread_keeps_its_class() -> None:
    def work() -> tuple[int, int]:
        be_nice()
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert on_a_thread(work) == (os.SCHED_OTHER, NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_it_is_nice_where_it_may_not_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    def work() -> int:
        stand_back()
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert on_a_thread(work) == NICENESS


def test_a_thread_that_comes_first_is_real_time_or_the_error_says_what_to_grant() -> None:
    with waiting_thread() as thread:
        try:
            come_first([thread])
        except StartError as error:
            assert "CAP_SYS_NICE" in str(error)  # noqa: PT017 - machines differ in what is granted
            assert os.sched_getscheduler(thread) == os.SCHED_OTHER
        else:
            policy = os.sched_getscheduler(thread)
            assert policy & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR


def test_a_machine_that_refuses_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(StartError, match=r"fast\.realtime.*not permitted.*LimitRTPRIO"):
        come_first([threading.get_native_id()])
