"""Shell sessions in documents, run to the letter: the commands typed, the output compared.

A session is a block of ```console: "$ " begins a command, the lines below are what it prints, a
line "..." stands for any lines. Blocks of one document go on with one another.

Compared is everything but what differs from run to run: runs of spaces, and numbers, unless they
are shares ("50 %"), versions ("2.0"), part of a count of 10,000 or of a metric. A generation (13
digits) is another one in every run, but the same generation wherever the document repeats it, in
output and in commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.serving import ROOT

GENERATION = r"\b[0-9]{13}\b"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
WHO = r"[\w.-]+@[\w.-]+"
KEPT = r"\d[\d,.]* %|[\d,]+ of 10,000|\b[12]\.0\b"
# What is not compared, before what is kept.
TOKENS = re.compile(
    rf"(?P<generation>{GENERATION}|\b1\.\d{{12}}e\+12\b)|(?P<time>{TIME})|(?P<who>{WHO})"
    rf"|(?P<kept>{KEPT})|(?P<unit>\d+ (?:s|min|h|d)\b)|(?P<size>[\d,.]+ [kMG]?B\b)"
    r"|(?P<number>\d[\d,.]*)"
)
ANY = {"time": TIME, "who": WHO, "unit": r"\d+ (?:s|min|h|d)", "size": r"[\d,.]+ [kMG]?B",
       "number": r"\d[\d,.]*"}  # fmt: skip


@dataclass
class Step:
    """A command, and the lines that it prints."""

    command: str
    output: list[str] = field(default_factory=list)


def read_sessions(text: str) -> list[Step]:
    """Return the steps of all sessions in a document, in order."""
    steps: list[Step] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            elif steps[-1].command.endswith("\\"):
                steps[-1].command = f"{steps[-1].command}\n{line}"
            else:
                steps[-1].output.append(line)
    return steps


class Session:
    """Runs steps one after the other.

    Parameters
    ----------
    environment
        Beside the usual: where the server is, who types.
    replaced
        Text in commands -> what it stands for here (addresses).
    folder
        Where commands run.
    """

    def __init__(
        self, environment: Mapping[str, str], replaced: Mapping[str, str], folder: Path
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCOREG")}
        scripts = str(Path(sys.executable).parent)
        path = f"{scripts}{os.pathsep}{clean['PATH']}"
        self._environment = {**clean, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
        self._replaced = replaced
        self._folder = folder
        self.generations: dict[str, str] = {}  # the document's -> this run's

    def run(self, step: Step) -> str:
        """Run a step's command, compare its output, and return it."""
        command = step.command
        for text, meant in {**self._replaced, **self.generations}.items():
            command = command.replace(text, meant)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        printed = done.stdout.rstrip("\n")
        if not self._compare(step.output, printed):
            raise AssertionError(
                f"$ {command}\nprints\n{printed}\nand the document says\n" + "\n".join(step.output)
            )
        return printed

    def _compare(self, expected: list[str], printed: str) -> bool:
        """Whether what was printed is what the document says; learns generations on the way."""
        names: list[str] = []
        parts = [self._pattern(line, names) for line in expected]
        pattern = "".join(parts).removesuffix("\n")
        found = re.fullmatch(
            pattern, _squeeze(printed) + ("\n" if expected[-1:] == ["..."] else "")
        )
        if found is None:
            return False
        for name in names:
            self.generations[name] = found[f"g{name}"]
        return True

    def _pattern(self, line: str, names: list[str]) -> str:
        """Return the regular expression of a line; appends generations that it meets first."""
        if line == "...":
            return r"(?:[^\n]*\n)*"
        text, out, end = _squeeze(line), "", 0
        for token in TOKENS.finditer(text):
            out += re.escape(text[end : token.start()])
            end = token.end()
            kind = str(token.lastgroup)
            if kind == "kept" or (text.startswith("ml_arm_weight") and kind == "number"):
                out += re.escape(token[0])
            elif kind == "generation":
                out += self._generation(token[0], names)
            else:
                out += ANY[kind]
        return out + re.escape(text[end:]) + "\n"

    def _generation(self, shown: str, names: list[str]) -> str:
        if not re.fullmatch(GENERATION, shown):  # Prometheus writes it as a float
            return r"1\.\d{1,12}e\+12"
        if shown in self.generations:
            return self.generations[shown]
        if shown in names:
            return f"(?P=g{shown})"
        names.append(shown)
        return f"(?P<g{shown}>{GENERATION})"


def _squeeze(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
