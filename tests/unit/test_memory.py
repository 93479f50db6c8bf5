"""What loading leaves is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.memory import resident_bytes, trim


def test_freed_memory_goes_back_to_the_system() -> None:
    try:
        if "libc.so.6" not in Path("/proc/self/maps").read_text(encoding="utf-8"):
            pytest.skip("not glibc")
    except OSError:
        pytest.skip("no /proc")
    blocks = [bytes(1000) for _ in range(60_000)]  # over pymalloc's limit: from malloc
    last = bytes(1000)  # holds the end of the heap, which glibc would give back by itself
    held = resident_bytes()
    blocks.clear()
    trim()
    assert resident_bytes() < held - 40e6
    assert len(last) == 1000
