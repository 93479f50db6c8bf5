"""Instructions are counted on a real server under valgrind, where there is one."""

from __future__ import annotations

import shutil

import pytest

from bench.callgrind import count
from bench.processes import LOAD_CORE

NEEDED = ("valgrind", "callgrind_control", "h2load", "taskset")

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED), reason="valgrind or h2load is missing"
)


def test_an_echo_is_counted_and_its_rooms_add_up() -> None:
    assert LOAD_CORE == "1"
    echo = count(
        ["server", "echo", "--port", "0"], "/scoregate.bench.Echo/Echo", b"x" * 200, n_calls=800
    )
    # Far from any tuning: an HTTP/2 call cannot be cheaper, and none of ours may be dearer.
    assert all(4_000 < one < 40_000 for one in echo.per_call)
    assert max(echo.per_call) < 1.1 * min(echo.per_call)
    middle = sum(echo.per_call) / len(echo.per_call)
    assert sum(echo.by_room.values()) == pytest.approx(middle, rel=0.02)
    assert {"libnghttp2", "fastpath.http2", "fastpath.echo"} <= set(echo.by_room)
    assert "fastpath.http2.on_header" in echo.by_function
