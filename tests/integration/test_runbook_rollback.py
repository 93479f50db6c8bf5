"""docs/runbooks/rollback.md, followed to the letter against a server whose last version is bad."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import MODEL, ROOT, Serving
from tests.support.sessions import Session, read_sessions
from tests.support.story import story_repository

PAGE = ROOT / "docs" / "runbooks" / "rollback.md"
# What led to where the page begins.
BEFORE = (
    ("deploy", "2.0", "--traffic", "10"),
    ("traffic", "set", "champion=50", "canary=50"),
    ("promote",),
)


def scoregate(control: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments, "--address", control],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return Path(shutil.copytree(story_repository(), tmp_path / "repository"))


@pytest.fixture
def server(repository: Path) -> Iterator[Serving]:
    """A server where 2.0 has just been promoted; former plans' models leave memory at once."""
    settings = {"models": [f"{MODEL}@1.0"], "rollout.keep_plans": 0}
    with Serving(repository, settings) as serving:
        for arguments in BEFORE:
            done = scoregate(serving.control, *arguments)
            assert done.returncode == 0, done.stderr
        yield serving


def test_the_page_is_what_happens(server: Serving, tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    assert len(text.splitlines()) <= 85
    session = Session(
        {"SCOREGATE_CONTROL": server.control, "USER": "ana"},
        {"127.0.0.1:9464": server.sidecar},
        tmp_path,
    )
    steps = read_sessions(text)
    assert len(steps) == 6
    for step in steps:
        # The address of the answer is the server's.
        step.output = [line.replace("127.0.0.1:50052", server.control) for line in step.output]
        session.run(step)
    # What the page says beside its sessions.
    for name in re.findall(r"\b(ml_\w+|scoregate_\w+)\b", text):
        assert f"\n{name}" in server.http("/metrics")[1], name
    assert server.metric("ml_arm_weight", arm="champion", model=MODEL, model_version="1.0") == 1
    # Frozen, and all the same: a rollback is allowed.
    again = scoregate(server.control, "rollback", "--to", session.generations["1795473104700"])
    assert again.returncode == 0, again.stderr


def test_a_second_rollback_goes_farther_back(server: Serving) -> None:
    done = [scoregate(server.control, "rollback").stdout for _ in range(2)]
    assert re.search(r"1\.0 +– +– +-> +champion +50 %", done[0]), done
    assert re.search(r"2\.0 +canary +50 % +-> +canary +10 %", done[1]), done


def test_refusals_are_those_of_the_table(server: Serving, repository: Path, tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")

    def refused(code: int, *arguments: str, where: Serving = server) -> str:
        done = scoregate(where.control, "rollback", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.count("\n") == 1
        return done.stderr

    for arguments, code, words in (
        (("--to", "7"), 2, "the journal has no generation"),
        (("--expect", "7"), 1, "the change was decided on"),
    ):
        assert words in refused(code, *arguments)
        assert words in text
    (repository / MODEL / "1.0" / "model.onnx").write_bytes(b"")
    assert "FAILED_PRECONDITION" in refused(2)
    shutil.rmtree(repository / MODEL / "1.0")
    assert "NOT_FOUND" in refused(2)
    with Serving(repository) as fresh:
        words = "there is no plan before the one in force"
        assert words in refused(2, where=fresh)
        assert words in text
