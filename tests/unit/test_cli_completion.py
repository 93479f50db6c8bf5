"""Completion in a shell that has read nothing but the line that the help shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def complete(words: list[str], home: Path) -> list[str]:
    """Press tab at the end of `words` in a new bash, whose user has an empty home."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(home), "TERM": "dumb"}
    shown = subprocess.run(
        ["scoregate", "completion", "--help"], env=env, capture_output=True, text=True, check=True
    ).stdout
    [line] = re.findall(r"^ *bash: +(.*)$", shown, re.MULTILINE)
    typed = " ".join(f"'{word}'" for word in words)
    script = f"""
        set -eu
        {line}
        complete -p scoregate | grep -q _scoregate_completion
        COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1} COMPREPLY=()
        _scoregate_completion scoregate '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["scoregate", "roll"], ["rollback"]),
        (["scoregate", "traffic", ""], ["set"]),
        (["scoregate", "rollback", "--ex"], ["--expect"]),
        (["scoregate", "demo", "--store", "r"], ["redis"]),
    ],
)
def test_the_line_of_the_help_completes_in_bash(
    words: list[str], found: list[str], tmp_path: Path
) -> None:
    assert complete(words, tmp_path) == found
