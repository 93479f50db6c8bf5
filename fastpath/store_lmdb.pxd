from libc.stdint cimport int32_t, uint64_t

from fastpath.c.lmdb cimport MDB_txn
from fastpath.lmdb_map cimport lmdb_map_t
from fastpath.store cimport OnlineStore

# Why reads failed; index of n_failed.
cdef enum lmdb_failure_t:
    LMDB_CLOSED = 0              # the environment is not open, or is being reopened
    LMDB_MAP_RESIZED = 1         # a writer grew it beyond our map
    LMDB_READERS_FULL = 2
    LMDB_CORRUPT = 3             # a damaged or lost page
    LMDB_OTHER = 4
    N_LMDB_FAILURES = 5

cdef enum lmdb_phase_t:
    LMDB_IDLE = 0                # between iterations, or nothing was read in this one
    LMDB_READING = 1             # the transaction is open
    LMDB_FAILED = 2              # it could not be opened: this iteration's reads fail


ctypedef struct environment_t:
    lmdb_map_t map
    int32_t shut                 # atomic; 1: no transaction may be opened


# One loop thread's view.
ctypedef struct lmdb_store_t:
    environment_t* environment
    MDB_txn* txn                 # owned; NULL until the first read, and after a reopening
    int32_t busy                 # atomic; 1 while the thread may touch txn or the map
    int32_t phase                # lmdb_phase_t
    int32_t failure              # lmdb_failure_t of this iteration
    uint64_t n_gets              # counters: written by the thread, read by any
    uint64_t n_hits
    uint64_t n_iterations        # transactions opened
    uint64_t[N_LMDB_FAILURES] n_failed


cdef class LmdbEnvironment:
    cdef environment_t environment
    cdef readonly str path
    cdef readonly str trouble    # why it is closed; "": it is open
    cdef object identity         # (device, inode) of the open data.mdb, or None
    cdef object suspect          # state of a file that lost a page: not opened again as it is
    cdef object key              # real path: this object's place in the process, or None
    cdef object lock
    cdef object stores           # weak references

    cdef int quiesce(self) except -1
    cdef void open_again(self) noexcept
    cdef object drop_transactions(self)


cdef class LmdbStore(OnlineStore):
    cdef lmdb_store_t state
    cdef readonly LmdbEnvironment environment
    cdef object __weakref__
