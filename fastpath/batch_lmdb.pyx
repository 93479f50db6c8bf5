"""One generation of one group's batch records, in an LMDB environment that nobody writes any more.

A generation is written whole and compacted, and never changed (`server.features.batch`), so it is
read without a lock file (MDB_NOLOCK) and one read transaction per thread stays open as long as the
table: a record stays valid as long, and a lookup takes no lock, no GIL and no allocation. A new
generation is a new table; the old one is freed when the last plan that uses it is.

Because the file is whole and compact, its size is checked exactly. What happens to it later (cut
by a careless hand, a failing disk) is met by the guard of `lmdb_map`: reads of this table fail,
the process lives.
"""

import os
from pathlib import Path

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpath._types cimport MAX_LOOPS, OUTCOME_ABSENT, OUTCOME_FAILED, OUTCOME_HIT, span_t
from fastpath.c.lmdb cimport (
    MDB_NOLOCK,
    MDB_NOTFOUND,
    MDB_NOTLS,
    MDB_RDONLY,
    MDB_txn,
    MDB_val,
    mdb_strerror,
    mdb_txn_abort,
    mdb_txn_begin,
)
from fastpath.lmdb_map cimport close_map, lmdb_map_t, map_get, open_map
from fastpath.store cimport BatchTable

from fastpath.store import OUTCOMES

__all__ = ["LmdbBatchTable"]

# Address space behind the file: see lmdb_map.
_SLACK_BYTES = 1 << 20


# Owned by the LmdbBatchTable.
ctypedef struct lmdb_batch_t:
    lmdb_map_t map
    int32_t n_threads
    MDB_txn** txns               # [n_threads], all open


cdef int32_t get_batch_record(
    void* impl, int32_t thread, const uint8_t* key, size_t n_key, span_t* out
) noexcept nogil:
    cdef lmdb_batch_t* batch = <lmdb_batch_t*> impl
    cdef MDB_val wanted
    cdef MDB_val found
    cdef int code
    if thread < 0 or thread >= batch.n_threads:
        return OUTCOME_FAILED
    wanted.mv_data = <void*> key
    wanted.mv_size = n_key
    code = map_get(&batch.map, batch.txns[thread], &wanted, &found)
    if code == 0:
        out.data = <const uint8_t*> found.mv_data
        out.size = found.mv_size
        return OUTCOME_HIT
    return OUTCOME_ABSENT if code == MDB_NOTFOUND else OUTCOME_FAILED


cdef class LmdbBatchTable(BatchTable):
    """A batch table that lies in an immutable LMDB environment.

    Parameters
    ----------
    path : str
        Directory of the generation, with its data.mdb.
    n_threads : int
        Threads that will read it, 1 to 64; thread i uses transaction i only.
    generation : str
        Its name.

    Attributes
    ----------
    path, generation : str
    n_records : int
    n_threads : int

    Raises
    ------
    StoreError
        Missing, not readable, not LMDB, of another version, cut or damaged.
    ValueError
        n_threads is outside its range.
    """

    cdef lmdb_batch_t batch
    cdef readonly str path
    cdef readonly Py_ssize_t n_records
    cdef str name

    def __cinit__(self, path, n_threads, generation):
        cdef int32_t i
        cdef int code
        memset(&self.batch, 0, sizeof(lmdb_batch_t))
        self.batch.map.guard = -1
        if not 1 <= n_threads <= MAX_LOOPS:
            raise ValueError(f"n_threads is {n_threads}; 1 to {MAX_LOOPS} are possible")
        self.path = str(path)
        self.name = str(generation)
        meta = read_meta(Path(self.path))
        if meta.file_bytes < meta.needed_bytes:
            raise StoreError(
                f"{self.path}/data.mdb was cut: {meta.file_bytes} bytes of {meta.needed_bytes}; "
                "load the table again, or roll back to an earlier generation"
            )
        self.n_records = meta.n_records
        self.batch.txns = <MDB_txn**> calloc(n_threads, sizeof(MDB_txn*))
        if self.batch.txns == NULL:
            raise MemoryError
        reserve = meta.needed_bytes + _SLACK_BYTES
        open_map(&self.batch.map, self.path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, reserve)
        for i in range(n_threads):
            code = mdb_txn_begin(self.batch.map.env, NULL, MDB_RDONLY, &self.batch.txns[i])
            if code != 0:
                self.batch.txns[i] = NULL
                raise StoreError(f"{self.path}: LMDB: {mdb_strerror(code).decode()}")
            self.batch.n_threads = i + 1
        self._read_ahead()
        self.table.impl = &self.batch
        self.table.get = get_batch_record

    def __dealloc__(self):
        # The plans that used the table are gone: no thread reads it.
        cdef int32_t i
        for i in range(self.batch.n_threads):
            mdb_txn_abort(self.batch.txns[i])
        free(self.batch.txns)
        close_map(&self.batch.map)

    def _read_ahead(self):
        """Ask the kernel for the file, so that a loop's first reads need not wait for the disk."""
        descriptor = os.open(Path(self.path, "data.mdb"), os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

    @property
    def generation(self):
        """Name of the generation."""
        return self.name

    @property
    def n_threads(self):
        """How many threads may read it."""
        return self.batch.n_threads

    def probe(self, bytes key not None, int32_t thread=0):
        """Look one key up as a loop does, for tests and tools; not while that thread runs.

        Parameters
        ----------
        key : bytes
            See `fastpath.record.record_key`.
        thread : int

        Returns
        -------
        (str, bytes)
            The outcome's name (`fastpath.store.OUTCOMES`), and a copy of the record, or b"".
        """
        cdef span_t out
        cdef const uint8_t* data = key
        cdef size_t size = len(key)
        cdef int32_t outcome
        out.data = NULL
        out.size = 0
        with nogil:
            outcome = get_batch_record(&self.batch, thread, data, size, &out)
        return OUTCOMES[outcome], out.data[:out.size] if outcome == OUTCOME_HIT else b""
