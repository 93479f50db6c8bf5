"""Names of who reports outcomes, as small numbers."""

from __future__ import annotations

import sqlite3

MAX_SOURCES = 1000  # names; further ones are OTHER
OTHER = "other"


class Sources:
    """The names, within the transactions of the store.

    Parameters
    ----------
    database
        Of the store.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._numbers: dict[str, int] = {}
        self.reload()

    def reload(self) -> None:
        """Forget what a transaction added that did not happen."""
        self._numbers = {
            name: int(s) for s, name in self._database.execute("SELECT s, name FROM sources")
        }

    def number(self, name: str) -> int:
        """Return the number of a name."""
        found = self._numbers.get(name)
        if found is not None:
            return found
        if len(self._numbers) >= MAX_SOURCES and name != OTHER:
            return self.number(OTHER)
        cursor = self._database.execute("INSERT INTO sources (name) VALUES (?)", (name,))
        assert cursor.lastrowid is not None
        self._numbers[name] = cursor.lastrowid
        return cursor.lastrowid
