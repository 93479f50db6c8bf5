"""docs/runbooks: every panel of every dashboard is explained, and commands are such that exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from server.cli import scoregate
from tests.support.serving import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
PANELS = RUNBOOKS / "dashboards.md"
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RETRAIN = RUNBOOKS / "retrain.md"


def sections(text: str) -> dict[str, str]:
    """Return what stands under each second heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def explained(section: str) -> list[str]:
    """Return the first cells of a section's table, without its head."""
    return re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)[1:]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


def test_every_panel_is_explained_and_none_that_is_not_there() -> None:
    told = sections(PANELS.read_text("utf-8"))
    boards = [json.loads(path.read_text("utf-8")) for path in BOARDS]
    assert set(told) == {board["title"] for board in boards}
    for board in boards:
        titles = [one["title"] for one in board["panels"] if one["type"] != "row"]
        assert explained(told[board["title"]]) == titles, board["title"]


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_runbooks_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8")):
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, in blocks and in lines of text."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)
    for inline in re.findall(r"`(scoregate [^`]+)`", text):
        yield shlex.split(inline)


def check(words: list[str]) -> None:
    """Let click parse a command, and not run it."""
    command: click.Command = scoregate
    context = click.Context(command)
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        assert found is not None, words
        command, rest = found, rest[1:]
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(rest)


@pytest.mark.parametrize("path", [PANELS, RETRAIN], ids=lambda path: path.stem)
def test_commands_are_such_that_exist(path: Path) -> None:
    found = list(commands(path.read_text("utf-8")))
    assert len(found) > 5
    for words in found:
        assert words[0] == "scoregate"
        check(words)
    for wrong in (["scoregate", "promote", "3", "--modle", "x"], ["scoregate", "retain"]):
        with pytest.raises((click.UsageError, AssertionError)):
            check(wrong)


def test_retraining_takes_under_a_page() -> None:
    text = RETRAIN.read_text("utf-8")
    assert len(text.splitlines()) <= 90
    assert max(map(len, text.splitlines())) <= 120
