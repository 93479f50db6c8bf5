"""The README's Python example runs as it stands, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.serving import Serving

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_call_from_python_works_as_printed() -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "127.0.0.1:50051" in example
    with Serving() as server:
        done = subprocess.run(
            [sys.executable, "-c", example.replace("127.0.0.1:50051", server.fast)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    dense, named = done.stdout.splitlines()[0], done.stdout.splitlines()[-1]
    assert dense.startswith(("approve ", "review ", "decline "))
    assert named.endswith("3 by default")
