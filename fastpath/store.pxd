from libc.stdint cimport int32_t, int64_t, uint8_t

from fastpath._types cimport span_t, watcher_t


# One read of one record that was not answered at once. Owned by the caller (the engine), which
# keeps it at one address until `done` was called or it called `abandon`.
cdef struct read_t:
    # The end of the read; called by the store on the same thread, exactly once, never from within
    # `get` or `abandon`. `record` is the store's, valid during the call only.
    void (*done)(
        read_t* read, int32_t outcome, const uint8_t* record, size_t n_record, int64_t now_ns
    ) noexcept nogil
    void* owner                  # the caller's
    int64_t started_ns           # set by the caller
    int64_t deadline_ns          # set by the caller: it abandons the read then
    int64_t[4] own               # the store's


# A table of online records, as one loop thread sees it. All functions run on that thread.
ctypedef struct store_t:
    void* impl
    int32_t may_wait             # 0: `get` never returns PENDING, and its `read` may be NULL
    # Looks up the record under "group:id". Returns an outcome_t:
    #   OUTCOME_HIT       `out` is the record; valid until `leave`
    #   OUTCOME_PENDING   `read.done` will be called, unless the read is abandoned
    #   anything else     there will be none
    int32_t (*get)(
        void* impl, const uint8_t* key, size_t n_key, read_t* read, int64_t now_ns, span_t* out
    ) noexcept nogil
    # Forgets a pending read: it timed out (`timed_out`), or nobody wants it any more.
    void (*abandon)(void* impl, read_t* read, int32_t timed_out, int64_t now_ns) noexcept nogil
    # An iteration: `flush` sends what `get` asked for and does what is due by time. NULL: nothing.
    void (*enter)(void* impl) noexcept nogil
    void (*flush)(void* impl, int64_t now_ns) noexcept nogil
    void (*leave)(void* impl) noexcept nogil
    # When `flush` is wanted although nothing arrives (reconnecting, hedging); INT64_MAX: never.
    int64_t (*wake_ns)(void* impl) noexcept nogil
    # First and last thing on the loop's thread; NULL: nothing to watch.
    void (*attach)(void* impl, const watcher_t* watcher, int64_t now_ns) noexcept nogil
    void (*detach)(void* impl) noexcept nogil


cdef class OnlineStore:
    # Filled by the subclass. One object per loop thread.
    cdef store_t table


# A batch table of one group: immutable, shared by all threads. Looks up the same keys. `out` stays
# valid as long as the table. Returns OUTCOME_HIT, OUTCOME_ABSENT or OUTCOME_FAILED.
ctypedef struct batch_t:
    void* impl
    int32_t (*get)(
        void* impl, int32_t thread, const uint8_t* key, size_t n_key, span_t* out
    ) noexcept nogil


cdef class BatchTable:
    cdef batch_t table
