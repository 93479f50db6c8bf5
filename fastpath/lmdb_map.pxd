from libc.stdint cimport int32_t, uintptr_t

from fastpath.c.lmdb cimport MDB_dbi, MDB_env, MDB_txn, MDB_val


# One open read-only environment. Owned by the cdef class that opened it, at one address while it is
# open: the guard writes to `torn`.
ctypedef struct lmdb_map_t:
    MDB_env* env                 # NULL: closed
    MDB_dbi dbi                  # the unnamed database: group:id -> record
    int32_t torn                 # atomic; 1: a page of the map is lost, stop using it
    int32_t guard                # slot of the guard, or -1
    uintptr_t end                # address behind the map


# Opens `directory`; raises StoreError and leaves `map` closed. reserve_bytes: address space to
# map at least; 0: what the file's writer chose. With the GIL.
cdef int open_map(
    lmdb_map_t* map, object directory, unsigned int flags, size_t reserve_bytes
) except -1
# Closes it, if it is open; no transaction of it may be left. With the GIL.
cdef void close_map(lmdb_map_t* map) noexcept
# mdb_get that survives damaged pages; MDB_CORRUPTED where there is one.
cdef int map_get(
    lmdb_map_t* map, MDB_txn* txn, MDB_val* key, MDB_val* data
) noexcept nogil
