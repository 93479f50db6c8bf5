"""The batch tables that a server reads, and how it learns of new generations.

Rules: `refresh` reads the `current` file of every group and opens what is new; a table that is
open and still current is kept, not opened again. A generation that cannot be opened is reported,
once, and the one before it stays: a bad load never takes features away. A table that is no longer
current is dropped from `tables` and lives as long as a plan uses it.

Runs in the serving process, in a thread that is no loop: reads the directory, writes nothing,
imports no library that does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.errors import StoreError
from server.errors import FeatureStoreError
from server.features.directory import batch_groups, batch_path, read_current

log = logging.getLogger(__name__)


class BatchTables:
    """The current batch table of every group of a store directory.

    Parameters
    ----------
    directory : path
        The store directory; it may come into being later.
    n_threads : int
        Loop threads that will read the tables.

    Attributes
    ----------
    tables : mapping of str to LmdbBatchTable
        By group. Replaced whole by `refresh`, so that a reference to it is a snapshot.
    errors : mapping of str to str
        By group: why its current generation is not the one served; "" names the directory.
    """

    def __init__(self, directory: Path | str, n_threads: int) -> None:
        self._directory = Path(directory)
        self._n_threads = n_threads
        self.tables: Mapping[str, LmdbBatchTable] = MappingProxyType({})
        self.errors: Mapping[str, str] = MappingProxyType({})

    def refresh(self) -> bool:
        """Look for new generations.

        Returns
        -------
        bool
            `tables` is another than before: a plan should be made of it.
        """
        errors: dict[str, str] = {}
        tables: dict[str, LmdbBatchTable] = {}
        try:
            groups = batch_groups(self._directory)
        except FeatureStoreError as error:
            errors[""] = str(error)
            groups = list(self.tables)
        for group in groups:
            table = self._table(group, errors)
            if table is not None:
                tables[group] = table
        for group, text in errors.items():
            if self.errors.get(group) != text:
                log.warning("batch table of %s: %s", group or "the store directory", text)
        self.errors = MappingProxyType(errors)
        if tables == dict(self.tables):
            return False
        self.tables = MappingProxyType(tables)
        return True

    def _table(self, group: str, errors: dict[str, str]) -> LmdbBatchTable | None:
        """Return the table to serve a group from; what is wrong goes to `errors`."""
        served = self.tables.get(group)
        try:
            generation = read_current(self._directory, group)
            if generation is None:
                return None
            if served is not None and served.generation == generation:
                return served
            path = batch_path(self._directory, group) / generation
            return LmdbBatchTable(str(path), self._n_threads, generation)
        except (StoreError, FeatureStoreError) as error:
            errors[group] = str(error)
            return served
