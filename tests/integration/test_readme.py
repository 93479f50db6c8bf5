"""The README's examples run as they stand: Python, and the session of a rollout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.serving import MODEL, Serving
from tests.support.sessions import Session, read_sessions
from tests.support.story import story_repository

ROOT = Path(__file__).resolve().parents[2]


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_first_call_from_python_works_as_printed() -> None:
    example, _ = examples()
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


def test_what_the_writer_writes_is_found(tmp_path: Path) -> None:
    _, example = examples()
    path = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", example) == ""
    get = ("-m", "server", "features", "get", "customer", "4712", "--store", "features", "--json")
    found = json.loads(run(*get))
    assert found["online"]["values"] == {"[0]": 1.0, "[1]": 99.0}


def test_the_story_of_a_rollout_is_what_happens(tmp_path: Path) -> None:
    steps = read_sessions((ROOT / "README.md").read_text())
    assert [step.command.split()[1] for step in steps] == [
        *("deploy", "traffic", "status", "promote", "rollback", "history")
    ]
    with Serving(story_repository(), {"models": [f"{MODEL}@1.0"]}) as server:
        session = Session({"SCOREGATE_CONTROL": server.control, "USER": "ana"}, {}, tmp_path)
        for step in steps:
            session.run(step)
        # In the story, each generation is another one.
        assert len(set(session.generations.values())) == len(session.generations) == 5
