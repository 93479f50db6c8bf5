"""What a store's own C library needs for one read: the floor under everything that we add.

Rules: nothing of fastpath but its declarations takes part. Both stores are asked by one thread
that holds no GIL, and every value is found, or the measurement is refused.

How it works: the keys are laid out in the order in which they are asked for, so that fetching a
key costs nothing that a request's own bytes would not. `lmdb_gets` renews one read transaction
every `n_per_txn` reads, as a loop does when it wakes, and copies each value into a buffer of 64
bytes. `redis_gets` uses hiredis's blocking client: `depth` GETs are written, then their replies
are read and freed; that is one call.

What it does not do: no decoding, no check of what a value holds, no reconnecting.
"""

import os

import numpy as np

from bench.address import parse
from bench.errors import BenchError
from bench.key_order import indices

from libc.stdint cimport int64_t
from libc.string cimport memcpy
from posix.time cimport (
    CLOCK_MONOTONIC,
    CLOCK_THREAD_CPUTIME_ID,
    clock_gettime,
    timespec,
)

cdef extern from "lmdb.h" nogil:
    ctypedef struct MDB_env:
        pass
    ctypedef struct MDB_txn:
        pass
    ctypedef unsigned int MDB_dbi
    ctypedef struct MDB_val:
        size_t mv_size
        void* mv_data
    enum:
        MDB_RDONLY
        MDB_NOTLS
        MDB_NOTFOUND
    int mdb_env_create(MDB_env** env)
    int mdb_env_open(MDB_env* env, const char* path, unsigned int flags, unsigned int mode)
    void mdb_env_close(MDB_env* env)
    int mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned int flags, MDB_txn** txn)
    void mdb_txn_reset(MDB_txn* txn)
    int mdb_txn_renew(MDB_txn* txn)
    void mdb_txn_abort(MDB_txn* txn)
    int mdb_dbi_open(MDB_txn* txn, const char* name, unsigned int flags, MDB_dbi* dbi)
    int mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
    const char* mdb_strerror(int err)

cdef extern from "hiredis/hiredis.h" nogil:
    ctypedef struct redisContext:
        int err
        char* errstr
    ctypedef struct redisReply:
        int type
        size_t len
        char* str
    enum:
        REDIS_OK
        REDIS_REPLY_STRING
        REDIS_REPLY_NIL
        REDIS_REPLY_ERROR
    redisContext* redisConnect(const char* ip, int port)
    redisContext* redisConnectUnix(const char* path)
    void redisFree(redisContext* context)
    int redisAppendCommandArgv(
        redisContext* context, int argc, const char** argv, const size_t* argvlen)
    int redisGetReply(redisContext* context, void** reply)
    void freeReplyObject(void* reply)

cdef enum:
    N_BUFFER = 64
    MAX_DEPTH = 1024

# Ends of a run besides 0 and an LMDB error.
cdef enum:
    LOST = 1                     # the connection broke
    MISSING = 2                  # a key has no value
    REFUSED = 3                  # an error, or not a string


cdef inline int64_t read_clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef int get_all(
    MDB_txn* txn, MDB_dbi dbi, const char* keys, const int64_t* ends, int64_t n_gets,
    int64_t n_per_txn, char* buffer, int64_t* failed
) noexcept nogil:
    # `txn` comes and goes reset. Returns an LMDB error; `failed` is the index of the last read.
    cdef MDB_val key
    cdef MDB_val value
    cdef int64_t i
    cdef int64_t start = 0
    cdef int64_t left = 0
    cdef int error
    for i in range(n_gets):
        failed[0] = i
        if left == 0:
            if i > 0:
                mdb_txn_reset(txn)
            error = mdb_txn_renew(txn)
            if error != 0:
                return error
            left = n_per_txn
        left -= 1
        key.mv_data = <void*> (keys + start)
        key.mv_size = <size_t> (ends[i] - start)
        start = ends[i]
        error = mdb_get(txn, dbi, &key, &value)
        if error != 0:
            mdb_txn_reset(txn)
            return error
        memcpy(buffer, value.mv_data, min(value.mv_size, <size_t> N_BUFFER))
    if n_gets > 0:
        mdb_txn_reset(txn)
    return 0


cdef int call_all(
    redisContext* context, const char* keys, const int64_t* ends, int64_t n_calls, int64_t depth,
    char* buffer, int64_t* times_ns, int64_t* failed
) noexcept nogil:
    cdef const char* arguments[2]
    cdef size_t[2] sizes
    cdef redisReply* reply = NULL
    cdef int64_t call
    cdef int64_t i
    cdef int64_t start = 0
    cdef int64_t started_ns
    cdef int status = 0
    arguments[0] = b"GET"
    sizes[0] = 3
    for call in range(n_calls):
        started_ns = read_clock_ns(CLOCK_MONOTONIC)
        for i in range(call * depth, (call + 1) * depth):
            arguments[1] = keys + start
            sizes[1] = <size_t> (ends[i] - start)
            start = ends[i]
            if redisAppendCommandArgv(context, 2, arguments, sizes) != REDIS_OK:
                return LOST
        for i in range(call * depth, (call + 1) * depth):
            failed[0] = i
            if redisGetReply(context, <void**> &reply) != REDIS_OK:
                return LOST
            if reply.type == REDIS_REPLY_STRING:
                memcpy(buffer, reply.str, min(reply.len, <size_t> N_BUFFER))
            else:
                status = MISSING if reply.type == REDIS_REPLY_NIL else REFUSED
            freeReplyObject(reply)
            if status != 0:
                return status
        times_ns[call] = read_clock_ns(CLOCK_MONOTONIC) - started_ns
    return 0


def _sequence(keys, n, order, seed, exponent):
    # The chosen keys back to back, and where each ends.
    if order == "given":
        drawn = np.arange(n) % max(len(keys), 1)
    else:
        drawn = indices(len(keys), n, order, seed=seed, exponent=exponent)
    chosen = [keys[i] for i in drawn.tolist()]
    ends = np.cumsum(np.fromiter(map(len, chosen), np.int64, n), dtype=np.int64)
    return b"".join(chosen), ends


def _say(int error):
    return mdb_strerror(error).decode()


def lmdb_gets(
    path, keys, int64_t n_gets, *, order="uniform", int64_t seed=0, int64_t n_per_txn=64,
    double exponent=1.0
):
    """Time `mdb_get` in an environment's unnamed database.

    Parameters
    ----------
    path : path-like
        The environment's folder. It must not be open in this process already.
    keys : sequence of bytes
        All keys that may be asked for.
    n_gets : int
    order : {"uniform", "zipf", "given"}
        See `bench.key_order`; "given" asks for the keys as they stand, over and over.
    seed : int
    n_per_txn : int
        Reads between a reset and a renewal of the read transaction.
    exponent : float
        Of "zipf".

    Returns
    -------
    tuple of float
        CPU and wall nanoseconds per read, renewals and copies included. The GIL is released.

    Raises
    ------
    BenchError
        An argument is out of range, the environment cannot be read, or a key is not there.
    """
    if n_gets < 1 or n_per_txn < 1:
        raise BenchError(f"{n_gets} reads, {n_per_txn} a transaction: both have to be at least 1")
    cdef bytes packed
    packed, found = _sequence(keys, n_gets, order, seed, exponent)
    cdef const int64_t[::1] ends = found
    cdef bytes name = os.fsencode(path)
    cdef MDB_env* env = NULL
    cdef MDB_txn* txn = NULL
    cdef MDB_dbi dbi = 0
    cdef const char* data = packed
    cdef char[N_BUFFER] buffer
    cdef int64_t failed = 0
    cdef int64_t cpu_ns = 0
    cdef int64_t wall_ns = 0
    cdef int error = mdb_env_create(&env)
    if error != 0:
        raise BenchError(f"{path}: {_say(error)}")
    try:
        error = mdb_env_open(env, name, MDB_RDONLY | MDB_NOTLS, 0o644)
        if error == 0:
            error = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)
        if error == 0:
            error = mdb_dbi_open(txn, NULL, 0, &dbi)
        if error != 0:
            raise BenchError(f"{path}: cannot be read as an LMDB environment: {_say(error)}")
        mdb_txn_reset(txn)
        with nogil:
            wall_ns = read_clock_ns(CLOCK_MONOTONIC)
            cpu_ns = read_clock_ns(CLOCK_THREAD_CPUTIME_ID)
            error = get_all(txn, dbi, data, &ends[0], n_gets, n_per_txn, buffer, &failed)
            cpu_ns = read_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns
            wall_ns = read_clock_ns(CLOCK_MONOTONIC) - wall_ns
        if error != 0:
            key = packed[0 if failed == 0 else ends[failed - 1]:ends[failed]]
            raise BenchError(f"{path}: read {failed}, key {key!r}: {_say(error)}")
    finally:
        if txn is not NULL:
            mdb_txn_abort(txn)
        mdb_env_close(env)
    return cpu_ns / n_gets, wall_ns / n_gets


def redis_gets(
    address, keys, int64_t n_calls, *, order="uniform", int64_t seed=0, int64_t depth=1,
    double exponent=1.0
):
    """Time GETs through hiredis's blocking client.

    Parameters
    ----------
    address : str
        `host:port` (IPv4) or `unix:/path`.
    keys : sequence of bytes
        Whole keys, prefix included.
    n_calls : int
    order : {"uniform", "zipf", "given"}
        See `bench.key_order`; "given" asks for the keys as they stand, over and over.
    seed : int
    depth : int
        GETs that are written before the first reply is read: 1 to 1024.
    exponent : float
        Of "zipf".

    Returns
    -------
    list of int
        Wall nanoseconds of each call, in order. The GIL is released while they run.

    Raises
    ------
    BenchError
        An argument is out of range, nobody listens, the connection broke, or a key is not there.
    """
    if n_calls < 1 or not 1 <= depth <= MAX_DEPTH:
        raise BenchError(
            f"{n_calls} calls of {depth} reads: at least 1 call, of 1 to {MAX_DEPTH} reads"
        )
    parse(address)
    cdef bytes packed
    packed, found = _sequence(keys, n_calls * depth, order, seed, exponent)
    cdef const int64_t[::1] ends = found
    taken = np.zeros(n_calls, np.int64)
    cdef int64_t[::1] times_ns = taken
    cdef const char* data = packed
    cdef char[N_BUFFER] buffer
    cdef int64_t failed = 0
    cdef int status = 0
    cdef bytes host
    cdef int port = 0
    cdef redisContext* context
    if address.startswith("unix:"):
        host = address.removeprefix("unix:").encode()
        context = redisConnectUnix(host)
    else:
        name, _, number = address.rpartition(":")
        host, port = name.encode(), int(number)
        context = redisConnect(host, port)
    if context is NULL:
        raise MemoryError
    try:
        if context.err != 0:
            raise BenchError(f"{address}: {context.errstr.decode()}")
        with nogil:
            status = call_all(
                context, data, &ends[0], n_calls, depth, buffer, &times_ns[0], &failed)
        if status == LOST:
            raise BenchError(f"{address}: read {failed}: {context.errstr.decode()}")
        if status != 0:
            key = packed[0 if failed == 0 else ends[failed - 1]:ends[failed]]
            why = "is not there" if status == MISSING else "holds no string, or is forbidden"
            raise BenchError(f"{address}: read {failed}: key {key!r} {why}")
    finally:
        redisFree(context)
    return taken.tolist()
