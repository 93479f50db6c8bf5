"""docs/access.md names every method that needs a role, in the row of its role."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.control.access import CONTROL, ROLES
from server.control.tokens import Role

DOC = Path(__file__).resolve().parents[2] / "docs" / "access.md"


@pytest.mark.parametrize("role", list(Role))
def test_the_table_of_roles(role: Role) -> None:
    rows = [line for line in DOC.read_text("utf-8").splitlines() if line.startswith("| `")]
    [row] = [line for line in rows if line.startswith(f"| `{role.label}` |")]
    names = {method.removeprefix(CONTROL) for method in ROLES if method.startswith(CONTROL)}
    said = set(row.replace(",", " ").replace("|", " ").split()) & names
    assert said == {name for name in names if ROLES[CONTROL + name] is role}
