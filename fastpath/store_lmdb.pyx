"""Online records in LMDB, read in place: the embedded store.

Rules: a `get` copies nothing, takes no lock and no GIL, and ends at once. Each loop thread has
one `LmdbStore` with one read transaction, which it keeps with its slot of the reader table
(MDB_NOTLS). The first `get` of a loop iteration renews the transaction, `leave` resets it: a
record is valid until then, an iteration without reads costs nothing, and a loop that sleeps
pins no pages that a writer would like to use again.

The environment is opened read only; a writer is always another process, and any number of
readers and that writer share it. Within this process it is opened once: LMDB keeps fcntl locks
on lock.mdb, and closing any descriptor of a file drops all locks that a process has on it; a
writer would then take our slots for a dead process's and overwrite pages that we read. For the
same reason nothing in the serving process may open and close lock.mdb (a backup, py-lmdb).

Growth: the map is mapped with far more address space than the file has (address space costs
nothing), so a writer that raises its map size is followed without a failed read. Beyond that, reads
fail with MDB_MAP_RESIZED until `refresh`.

Failures are counted by cause, and an iteration that could not open its transaction tries once,
not per read. `refresh`, called now and then from a background thread, mends what can be mended:
it opens an environment that was missing, and opens it anew when the file was replaced, grew
beyond the map, or lost a page. It first shuts the gate (`shut`), then waits until no thread is
between its first `get` and `leave` (`busy`); reads in that moment, microseconds to a millisecond,
fail as "closed". The gate is there because the old environment must be closed before the new
one is opened: to open it aside and swap would be to have it open twice.

Not here: writing (`server.features`), and a server in another PID namespace than its writer:
LMDB tells readers apart by process id.
"""

import os
import threading
import time
import weakref
from pathlib import Path

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset

from fastpath._types cimport OUTCOME_ABSENT, OUTCOME_FAILED, OUTCOME_HIT, span_t
from fastpath.c.atomic cimport (
    __ATOMIC_RELAXED,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    load_i32,
    load_u64,
    store_i32,
    store_u64,
)
from fastpath.c.lmdb cimport (
    MDB_CORRUPTED,
    MDB_MAP_RESIZED,
    MDB_NOTFOUND,
    MDB_NOTLS,
    MDB_PAGE_NOTFOUND,
    MDB_RDONLY,
    MDB_READERS_FULL,
    MDB_envinfo,
    MDB_val,
    mdb_env_info,
    mdb_reader_check,
    mdb_txn_abort,
    mdb_txn_begin,
    mdb_txn_renew,
    mdb_txn_reset,
)
from fastpath.lmdb_map cimport close_map, map_get, open_map
from fastpath.store cimport OnlineStore, read_t

from fastpath.store import OUTCOMES

__all__ = ["FAILURES", "LmdbEnvironment", "LmdbStore"]

# Address space to map at least, and in terms of the writer's map size.
_RESERVE_BYTES = 64 << 30
_RESERVE_FACTOR = 4
# How long `refresh` waits for the loops to leave their iterations.
_QUIESCE_S = 2.0

FAILURES = ("closed", "map_resized", "readers_full", "corrupt", "other")
assert len(FAILURES) == N_LMDB_FAILURES

# Real paths of the environments that are open in this process.
_open_paths = set()
_open_paths_lock = threading.Lock()


# ------------------------------------------------------------------- one loop thread


cdef inline void count(uint64_t* counter) noexcept nogil:
    store_u64(counter, counter[0] + 1, __ATOMIC_RELAXED)


cdef int32_t failure_of(int code) noexcept nogil:
    if code == MDB_MAP_RESIZED:
        return LMDB_MAP_RESIZED
    if code == MDB_READERS_FULL:
        return LMDB_READERS_FULL
    if code == MDB_CORRUPTED or code == MDB_PAGE_NOTFOUND:
        return LMDB_CORRUPT
    return LMDB_OTHER


cdef int32_t begin_reading(lmdb_store_t* store) noexcept nogil:
    """Opens this iteration's transaction. Returns 0, or -1: `failure` says why not."""
    cdef environment_t* environment = store.environment
    cdef int code
    # Said before the gate is looked at; `quiesce` shuts the gate before it looks at `busy`.
    store_i32(&store.busy, 1, __ATOMIC_SEQ_CST)
    if load_i32(&environment.shut, __ATOMIC_SEQ_CST) != 0:
        store_i32(&store.busy, 0, __ATOMIC_RELEASE)
        store.failure = LMDB_CLOSED
    elif load_i32(&environment.map.torn, __ATOMIC_RELAXED) != 0:
        store_i32(&store.busy, 0, __ATOMIC_RELEASE)
        store.failure = LMDB_CORRUPT
    else:
        if store.txn == NULL:
            code = mdb_txn_begin(environment.map.env, NULL, MDB_RDONLY, &store.txn)
            if code != 0:
                store.txn = NULL
        else:
            code = mdb_txn_renew(store.txn)
        if code == 0:
            store.phase = LMDB_READING
            count(&store.n_iterations)
            return 0
        store_i32(&store.busy, 0, __ATOMIC_RELEASE)
        store.failure = failure_of(code)
    store.phase = LMDB_FAILED
    return -1


cdef int32_t get_record(
    void* impl, const uint8_t* key, size_t n_key, read_t* read, int64_t now_ns, span_t* out
) noexcept nogil:
    cdef lmdb_store_t* store = <lmdb_store_t*> impl
    cdef MDB_val wanted
    cdef MDB_val found
    cdef int code
    count(&store.n_gets)
    if store.phase != LMDB_READING and (store.phase == LMDB_FAILED or begin_reading(store) != 0):
        count(&store.n_failed[store.failure])
        return OUTCOME_FAILED
    wanted.mv_data = <void*> key
    wanted.mv_size = n_key
    code = map_get(&store.environment.map, store.txn, &wanted, &found)
    if code == 0:
        out.data = <const uint8_t*> found.mv_data
        out.size = found.mv_size
        count(&store.n_hits)
        return OUTCOME_HIT
    if code == MDB_NOTFOUND:
        return OUTCOME_ABSENT
    count(&store.n_failed[failure_of(code)])
    return OUTCOME_FAILED


cdef void abandon_nothing(
    void* impl, read_t* read, int32_t timed_out, int64_t now_ns
) noexcept nogil:
    """No read of this store is ever pending."""


cdef void leave_iteration(void* impl) noexcept nogil:
    cdef lmdb_store_t* store = <lmdb_store_t*> impl
    if store.phase == LMDB_READING:
        mdb_txn_reset(store.txn)
        store_i32(&store.busy, 0, __ATOMIC_RELEASE)
    store.phase = LMDB_IDLE


cdef void detach_store(void* impl) noexcept nogil:
    """The thread ends: gives its slot of the reader table back."""
    cdef lmdb_store_t* store = <lmdb_store_t*> impl
    leave_iteration(impl)
    store_i32(&store.busy, 1, __ATOMIC_SEQ_CST)
    if store.txn != NULL and load_i32(&store.environment.shut, __ATOMIC_SEQ_CST) == 0:
        mdb_txn_abort(store.txn)
        store.txn = NULL
    store_i32(&store.busy, 0, __ATOMIC_RELEASE)


# no_gc_clear: the transaction must end before the environment that the attribute keeps alive.
@cython.no_gc_clear
cdef class LmdbStore(OnlineStore):
    """One loop thread's view of an `LmdbEnvironment`; made by `LmdbEnvironment.store`.

    Attributes
    ----------
    environment : LmdbEnvironment
        Kept open as long as the store lives.
    """

    def __cinit__(self, LmdbEnvironment environment not None):
        memset(&self.state, 0, sizeof(lmdb_store_t))
        self.environment = environment
        self.state.environment = &environment.environment
        memset(&self.table, 0, sizeof(self.table))
        self.table.impl = &self.state
        self.table.get = get_record
        self.table.abandon = abandon_nothing
        self.table.leave = leave_iteration
        self.table.detach = detach_store

    def __dealloc__(self):
        # No lock: the loops have joined, and `refresh` closes an environment only after it aborted
        # the transactions of all living stores; both hold the GIL meanwhile.
        if self.state.txn != NULL:
            mdb_txn_abort(self.state.txn)
            self.state.txn = NULL

    def stats(self):
        """Return the counters of this thread, read while it runs.

        Returns
        -------
        dict of str to int
            gets, hits, iterations (transactions opened), and by cause failed_closed (missing, or
            being reopened), failed_map_resized, failed_readers_full, failed_corrupt,
            failed_other. Gets that neither hit nor failed found no record.
        """
        counters = {
            "gets": load_u64(&self.state.n_gets, __ATOMIC_RELAXED),
            "hits": load_u64(&self.state.n_hits, __ATOMIC_RELAXED),
            "iterations": load_u64(&self.state.n_iterations, __ATOMIC_RELAXED),
        }
        cdef int32_t cause
        for cause in range(N_LMDB_FAILURES):
            counters[f"failed_{FAILURES[cause]}"] = load_u64(
                &self.state.n_failed[cause], __ATOMIC_RELAXED
            )
        return counters

    def probe(self, bytes key not None, *, bint leave=True):
        """Look one key up as a loop does, for tests and tools; never while a loop uses the store.

        Parameters
        ----------
        key : bytes
            See `fastpath.record.record_key`.
        leave : bool
            End the iteration: reset the transaction.

        Returns
        -------
        (str, bytes)
            The outcome's name (`fastpath.store.OUTCOMES`), and a copy of the record, or b"".
        """
        cdef span_t out
        cdef const uint8_t* data = key
        cdef size_t size = len(key)
        cdef int32_t outcome
        cdef bytes record = b""
        out.data = NULL
        out.size = 0
        with nogil:
            outcome = get_record(&self.state, data, size, NULL, 0, &out)
        if outcome == OUTCOME_HIT:
            record = out.data[:out.size]
        if leave:
            leave_iteration(&self.state)
        return OUTCOMES[outcome], record


# ------------------------------------------------------------------ the environment


cdef class LmdbEnvironment:
    """An online environment, open for reading, once per process and path.

    Parameters
    ----------
    path : str
        Directory with data.mdb and lock.mdb. lock.mdb must be writable: readers register there.
    required : bool
        False: where it cannot be opened the object stands all the same; its stores answer
        OUTCOME_FAILED, `trouble` says why, and `refresh` tries again.

    Attributes
    ----------
    path : str
    trouble : str
        Why it is closed, or what threatens it while it is open (data.mdb was deleted: what was in
        it is still served); else empty.

    Raises
    ------
    StoreError
        Required, and missing, not readable, not LMDB, of another version, damaged, or its reader
        table is full; or the path is open in this process already.
    """

    def __cinit__(self, path, *, bint required=True):
        memset(&self.environment, 0, sizeof(environment_t))
        self.environment.map.guard = -1
        self.environment.shut = 1
        self.path = str(path)
        self.trouble = "not opened yet"
        self.identity = None
        self.lock = threading.RLock()
        self.stores = weakref.WeakSet()
        self.suspect = None
        key = os.path.realpath(self.path)
        with _open_paths_lock:
            if key in _open_paths:
                raise StoreError(f"{self.path} is open in this process already: share that one")
            _open_paths.add(key)
        self.key = key
        self.open_again()
        if required and self.trouble:
            raise StoreError(self.trouble)

    def __dealloc__(self):
        # Stores keep their environment alive: none is left, and so is no transaction.
        close_map(&self.environment.map)
        if self.key is not None:
            _open_paths.discard(self.key)

    cdef void open_again(self) noexcept:
        """Opens what is closed and lifts the gate, or sets `trouble`. Under the lock."""
        try:
            meta = read_meta(Path(self.path))
            if (meta.identity, meta.file_bytes, meta.transaction) == self.suspect:
                raise StoreError(
                    f"{self.path}/data.mdb was cut: {meta.file_bytes} bytes of "
                    f"{meta.needed_bytes}; restore or load it again"
                )
            lock = Path(self.path, "lock.mdb")
            if not os.access(lock if lock.exists() else self.path, os.W_OK):
                # liblmdb would read without registering, and a writer overwrite what we read.
                raise StoreError(
                    f"{lock}: not writable: readers register there; let uid {os.geteuid()} write "
                    "it, on a file system that is not mounted read only"
                )
            reserve = max(_RESERVE_BYTES, _RESERVE_FACTOR * meta.map_bytes)
            open_map(&self.environment.map, self.path, MDB_RDONLY | MDB_NOTLS, reserve)
        except StoreError as error:
            self.trouble = str(error)
        except Exception as error:  # noqa: BLE001 - closed, and said why, whatever it was
            self.trouble = f"{self.path}: cannot be opened: {error}"
        else:
            self.identity = meta.identity
            self.trouble = ""
            store_i32(&self.environment.shut, 0, __ATOMIC_SEQ_CST)

    cdef int quiesce(self) except -1:
        """Shuts the gate and waits until no thread reads. Returns 0, or 1: one still does."""
        cdef LmdbStore store
        store_i32(&self.environment.shut, 1, __ATOMIC_SEQ_CST)
        end = time.monotonic() + _QUIESCE_S
        for store in list(self.stores):
            while load_i32(&store.state.busy, __ATOMIC_SEQ_CST) != 0:
                if time.monotonic() > end:
                    return 1
                time.sleep(50e-6)
        return 0

    cdef object drop_transactions(self):
        """Aborts every store's transaction; the gate is shut and no thread reads."""
        cdef LmdbStore store
        for store in list(self.stores):
            if store.state.txn != NULL:
                mdb_txn_abort(store.state.txn)
                store.state.txn = NULL

    def store(self):
        """Return a store for one more loop thread.

        Returns
        -------
        LmdbStore
        """
        store = LmdbStore(self)
        with self.lock:
            self.stores.add(store)
        return store

    def refresh(self):
        """Open the environment if it is closed; open it anew if it has to be.

        Called now and then (say every second) from a thread that is no loop. Costs two reads of
        the file's head when there is nothing to do.

        Returns
        -------
        bool
            It was opened or closed by this call, or the trouble is another. See `is_open`.
        """
        cdef int n_dead = 0
        with self.lock:
            if self.environment.map.env == NULL:
                before = self.trouble
                self.open_again()
                return self.trouble != before
            if not Path(self.path, "data.mdb").exists():
                self.trouble = f"{self.path}/data.mdb was deleted: its last state is served"
                return False
            reason = self._reason()
            if not reason:
                self.trouble = ""
                mdb_reader_check(self.environment.map.env, &n_dead)
                return False
            if self.quiesce() != 0:
                store_i32(&self.environment.shut, 0, __ATOMIC_SEQ_CST)
                return False
            self.drop_transactions()
            close_map(&self.environment.map)
            self.open_again()
            return True

    def _reason(self):
        """Return why the open environment has to be opened anew; empty: it has not."""
        cdef MDB_envinfo info
        try:
            meta = read_meta(Path(self.path))
        except StoreError:
            time.sleep(0.01)  # a writer may have been at it
            try:
                meta = read_meta(Path(self.path))
            except StoreError as error:
                return str(error)
        if meta.identity != self.identity:
            return "data.mdb was replaced"
        if load_i32(&self.environment.map.torn, __ATOMIC_RELAXED) != 0:
            # A sound file may end a few loose pages early; one that lost a page and ends
            # early was cut, and would only lose more.
            if meta.file_bytes < meta.needed_bytes:
                self.suspect = (meta.identity, meta.file_bytes, meta.transaction)
            return "data.mdb lost a page"
        mdb_env_info(self.environment.map.env, &info)
        if meta.needed_bytes > info.me_mapsize:
            return "data.mdb grew beyond its map"
        return ""

    @property
    def is_open(self):
        """Whether reads are answered."""
        return load_i32(&self.environment.shut, __ATOMIC_SEQ_CST) == 0

    def stats(self):
        """Return the sum of the stores' counters, and the environment's own figures.

        Returns
        -------
        dict of str to int
            `LmdbStore.stats` summed; open (0 or 1), map_bytes (mapped), transaction (the newest
            committed), readers (slots of the reader table that were ever used), max_readers.
        """
        cdef MDB_envinfo info
        totals = {}
        with self.lock:
            for store in list(self.stores):
                for name, value in store.stats().items():
                    totals[name] = totals.get(name, 0) + value
            memset(&info, 0, sizeof(info))
            if self.environment.map.env != NULL:
                mdb_env_info(self.environment.map.env, &info)
        totals["open"] = int(self.is_open)
        totals["map_bytes"] = info.me_mapsize
        totals["transaction"] = info.me_last_txnid
        totals["readers"] = info.me_numreaders
        totals["max_readers"] = info.me_maxreaders
        return totals
