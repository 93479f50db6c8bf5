"""Opening LMDB environments for reading, and reading them without dying of a damaged file.

How it works: `lmdb_file` looks at the meta pages first and says in words what is wrong;
then liblmdb maps the file, read only. The map is registered with the guard of `lmdb_guard.h`: a
page that is lost under us (the file was cut, the disk fails) reads as zeros instead of ending the
process with SIGBUS, and raises the map's `torn` flag; an assertion in liblmdb is MDB_CORRUPTED.

Whoever opens a map reserves address space behind the file: a damaged page can lead liblmdb up to
128 KiB past itself, which must still be inside the guarded map.

Not protected: a page whose content was overwritten with something plausible. LMDB has no
checksums; records carry a fingerprint and a size, which the engine checks.
"""

import os
from pathlib import Path

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta

from libc.stdint cimport int32_t, uintptr_t

from fastpath.c.atomic cimport __ATOMIC_RELAXED, load_i32
from fastpath.c.lmdb cimport (
    MDB_CORRUPTED,
    MDB_INVALID,
    MDB_RDONLY,
    MDB_READERS_FULL,
    MDB_VERSION_MISMATCH,
    MDB_dbi,
    MDB_env,
    MDB_txn,
    MDB_val,
    mdb_dbi_flags,
    mdb_dbi_open,
    mdb_env_close,
    mdb_env_create,
    mdb_env_open,
    mdb_env_set_mapsize,
    mdb_reader_check,
    mdb_strerror,
    mdb_txn_abort,
    mdb_txn_begin,
)


cdef extern from "lmdb_guard.h" nogil:
    int guard_add(const void* start, size_t n_bytes, int32_t* torn)
    void guard_remove(int slot)
    int guard_asserts(MDB_env* env)
    int guarded_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)

cdef extern from "errno.h" nogil:
    const int EACCES
    const int ENOMEM
    const int ENOSPC
    const int EROFS


# Far above a record's size: what claims to be larger is damaged.
cdef enum:
    MAX_VALUE_BYTES = 1 << 20


def _maps_of(inode):
    """Return {start: n_bytes} of this process's maps of a file."""
    found = {}
    with open("/proc/self/maps", "rb") as lines:
        for line in lines:
            fields = line.split(None, 5)
            if int(fields[4]) == inode:
                start, end = fields[0].split(b"-")
                found[int(start, 16)] = int(end, 16) - int(start, 16)
    return found


def _refusal(code, directory):
    """Return a StoreError for an error code of mdb_env_open."""
    text = mdb_strerror(code).decode()
    if code == EACCES or code == EROFS:
        return StoreError(
            f"{directory}: permission denied: a reader registers itself in lock.mdb: let uid "
            f"{os.geteuid()} write it (and read data.mdb)"
        )
    if code == MDB_VERSION_MISMATCH:
        return StoreError(
            f"{directory}: another LMDB uses it with a lock file of another format: stop that "
            "writer, delete lock.mdb, and write with LMDB 0.9"
        )
    if code == MDB_INVALID:
        return StoreError(
            f"{directory}/data.mdb is not a table of ours, or damaged: correct the path, or load it"
        )
    if code == MDB_READERS_FULL:
        return StoreError(
            f"{directory}: its reader table is full: stop other readers, or give the environment "
            "more (max_readers) when it is created"
        )
    if code == ENOMEM:
        return StoreError(
            f"{directory}: no address space for its map: raise the limit (ulimit -v)"
        )
    if code == ENOSPC:
        return StoreError(f"{directory}: no space left to create lock.mdb")
    return StoreError(f"{directory}: LMDB cannot open it: {text}")


cdef int open_handle(MDB_env* env, MDB_dbi* out) noexcept nogil:
    """Opens the unnamed database: needed once per environment, for its compare function."""
    cdef MDB_txn* txn = NULL
    cdef unsigned int flags = 0
    cdef int code = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)
    if code != 0:
        return code
    code = mdb_dbi_open(txn, NULL, 0, out)
    if code == 0:
        code = mdb_dbi_flags(txn, out[0], &flags)
    if code == 0 and flags != 0:
        code = MDB_INVALID  # sorted or numbered otherwise: not one of ours
    mdb_txn_abort(txn)
    return code


cdef int open_map(
    lmdb_map_t* map, object directory, unsigned int flags, size_t reserve_bytes
) except -1:
    cdef MDB_env* env = NULL
    cdef MDB_dbi dbi = 0
    cdef int n_dead = 0
    cdef int code
    cdef int slot
    cdef uintptr_t address
    cdef size_t n_bytes
    map.env = NULL
    map.torn = 0
    map.guard = -1
    path = Path(directory)
    meta = read_meta(path)
    name = os.fsencode(path)
    before = _maps_of(meta.identity[1])
    code = mdb_env_create(&env)
    if code != 0:
        raise _refusal(code, path)
    code = mdb_env_set_mapsize(env, reserve_bytes)
    if code == 0:
        code = guard_asserts(env)
    if code == 0:
        code = mdb_env_open(env, name, flags, 0o644)
    if code == 0:
        mdb_reader_check(env, &n_dead)  # slots of processes that were killed
        code = open_handle(env, &dbi)
    if code != 0:
        mdb_env_close(env)
        if code == ENOMEM and reserve_bytes != 0:
            return open_map(map, directory, flags, 0)
        raise _refusal(code, path)
    after = _maps_of(meta.identity[1])
    new = [(start, size) for start, size in after.items() if before.get(start) != size]
    if len(new) != 1:
        mdb_env_close(env)
        raise StoreError(f"{path}/data.mdb was replaced while it was opened: try again")
    address, n_bytes = new[0]
    slot = guard_add(<const void*> address, n_bytes, &map.torn)
    if slot < 0:
        mdb_env_close(env)
        raise StoreError(f"{path}: too many LMDB environments are open in this process")
    map.guard = slot
    map.end = address + n_bytes
    map.dbi = dbi
    map.env = env
    return 0


cdef void close_map(lmdb_map_t* map) noexcept:
    if map.env == NULL:
        return
    # The guard first: the address may belong to somebody else as soon as LMDB unmaps it.
    guard_remove(map.guard)
    mdb_env_close(map.env)
    map.env = NULL
    map.guard = -1
    map.torn = 0


cdef int map_get(
    lmdb_map_t* map, MDB_txn* txn, MDB_val* key, MDB_val* data
) noexcept nogil:
    cdef int code = guarded_get(txn, map.dbi, key, data)
    if load_i32(&map.torn, __ATOMIC_RELAXED) != 0:
        return MDB_CORRUPTED
    # A damaged node can claim any size, and LMDB looks only at its start.
    if code == 0 and (
        data.mv_size > MAX_VALUE_BYTES or <uintptr_t> data.mv_data + data.mv_size > map.end
    ):
        return MDB_CORRUPTED
    return code
