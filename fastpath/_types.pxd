"""The only ctypedefs, limits and structs that more than one room of `fastpath` shares.

Rules: plain C data, no Python objects, no functions. A struct says who owns what it points
to. A field with a unit carries it in its name.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_FEATURES = 1024          # per schema; sizes every per-thread scratch row
    MAX_ENTITIES = 16            # per request
    MAX_REQUEST_ID_BYTES = 128
    MAX_ROUTING_KEY_BYTES = 1024
    N_BUCKETS = 10000            # routing resolution: one bucket is one basis point
    MAX_LOOPS = 64
    ERROR_TEXT_BYTES = 256
    MAX_GROUPS = 8               # groups of stored features per schema
    MAX_GROUP_NAME_BYTES = 64
    MAX_ENTITY_ID_BYTES = 256    # of an entity whose record is read; longer: never stored
    MAX_KEY_BYTES = 321          # group, ":", entity id
    RECORD_HEADER_BYTES = 16     # group fingerprint (u64), event time (i64), both little endian

# gRPC status codes (the gRPC "Status codes and their use" page).
cdef enum status_t:
    STATUS_OK = 0
    STATUS_CANCELLED = 1
    STATUS_UNKNOWN = 2
    STATUS_INVALID_ARGUMENT = 3
    STATUS_DEADLINE_EXCEEDED = 4
    STATUS_NOT_FOUND = 5
    STATUS_ALREADY_EXISTS = 6
    STATUS_PERMISSION_DENIED = 7
    STATUS_RESOURCE_EXHAUSTED = 8
    STATUS_FAILED_PRECONDITION = 9
    STATUS_ABORTED = 10
    STATUS_OUT_OF_RANGE = 11
    STATUS_UNIMPLEMENTED = 12
    STATUS_INTERNAL = 13
    STATUS_UNAVAILABLE = 14
    STATUS_DATA_LOSS = 15
    STATUS_UNAUTHENTICATED = 16
    N_STATUSES = 17

# Where a feature's value came from: the values of scoregate.v1.FeatureSource.
cdef enum source_t:
    SOURCE_UNSPECIFIED = 0
    SOURCE_REQUEST = 1
    SOURCE_ONLINE = 2
    SOURCE_BATCH = 3
    SOURCE_DEFAULT = 4
    N_SOURCES = 5
    # Within the engine and in captured rows: a default for a category outside the vocabulary.
    # Counted, and told to callers, as SOURCE_DEFAULT.
    SOURCE_UNSEEN = 5

# Why a value of the request was not used: index of resolved_t.n_missing.
cdef enum missing_t:
    MISSING_ABSENT = 0           # not in the request, or not in its layout
    MISSING_NULL = 1             # NaN in a dense row, a null in named features
    MISSING_INFINITE = 2
    MISSING_RANGE = 3            # outside the schema's range
    MISSING_UNSEEN = 4           # categorical: not in the vocabulary
    N_MISSING = 5

# How one read of one stored record ended: values of scoregate.v1.ReadOutcome.
cdef enum outcome_t:
    OUTCOME_NOT_READ = 0         # the request held every feature of the group, or no such table
    OUTCOME_HIT = 1              # a record was found and is fresh
    OUTCOME_ABSENT = 2           # the store answered: no record for this entity
    OUTCOME_STALE = 3            # a record was found, and every feature of it is too old
    OUTCOME_NO_ENTITY = 4        # the request names no entity of the group's type
    OUTCOME_FOREIGN = 5          # a record of a layout that no loaded schema declares
    OUTCOME_MALFORMED = 6        # a record whose size does not fit its layout
    OUTCOME_TIMEOUT = 7          # no answer within the budget or the deadline
    OUTCOME_UNREACHABLE = 8      # no connection, or it was lost while the read waited
    OUTCOME_REFUSED = 9          # the store answered with an error: wrong type, no permission ...
    OUTCOME_BREAKER = 10         # not asked: the circuit breaker is open
    OUTCOME_BUSY = 11            # not asked: too many reads or rows are waiting
    OUTCOME_FAILED = 12          # an error of the store itself: damaged file, reader table full
    N_OUTCOMES = 13
    OUTCOME_PENDING = 100        # not an end: the answer comes later

# Values of scoregate.v1.FeatureType.
cdef enum feature_type_t:
    FEATURE_NUMERIC = 1
    FEATURE_BOOLEAN = 2
    FEATURE_CATEGORICAL = 3

# Values of scoregate.v1.ScoreKind.
cdef enum score_kind_t:
    SCORE_PROBABILITY = 1
    SCORE_VALUE = 2

# From raw score to score: score = prior_shift(link(raw)).
cdef enum link_t:
    LINK_LOGIT = 0       # raw is log-odds: 1 / (1 + exp(-(raw + shift)))
    LINK_IDENTITY = 1    # raw is a probability; the shift moves its odds by exp(shift)

# Bytes that somebody else owns.
ctypedef struct span_t:
    const uint8_t* data
    size_t size

# An error on one call's way. `text` is UTF-8, NUL-terminated, and says what, where, what to do.
ctypedef struct error_t:
    int32_t status               # a status_t; STATUS_OK while there is none
    char[ERROR_TEXT_BYTES] text

# ------------------------------------------------------------------ models
#
# One model interface, three engines (forest, linear, onnx). `rows[i]` points to one row of
# `n_features` float32 values that the caller owns for the length of the call; out_raw[i] is
# its raw score. `thread` is the index of the calling loop, below MAX_LOOPS: an engine that needs
# scratch memory keeps one per thread. No score depends on the other rows of the call.
# Returns 0, or a nonzero engine-specific code (the whole call failed; nothing was written).
ctypedef int32_t (*score_rows_fn)(
    void* impl, int32_t thread, const float* const* rows, int32_t n_rows, float* out_raw
) noexcept nogil

ctypedef struct model_t:
    score_rows_fn score_rows
    void* impl                   # owned by the cdef class that made the model
    int32_t n_features

# ------------------------------------------------------------------- calls
#
# One unary call, made by a transport (an HTTP/2 stream, or the control port's hand-over) when
# its message is complete. The transport owns it; a service borrows it from `on_call` until it calls
# `complete` on it, exactly once, on the same thread. A peer that went away sets `cancelled`: the
# service drops the work and still completes it.
cdef struct call_t

# `body` and `message` are the service's, valid during the call only. With a status other
# than STATUS_OK there is no body and `message` is the error text.
ctypedef void (*complete_fn)(
    call_t* call, int32_t status, const uint8_t* body, size_t n_body,
    const char* message, size_t n_message
) noexcept nogil

cdef struct call_t:
    complete_fn complete
    void* owner                  # the transport's own object
    int32_t method               # what find_method returned
    int32_t cancelled
    int64_t arrival_ns           # monotonic clock, message complete
    int64_t deadline_ns          # monotonic clock; INT64_MAX: none

# ----------------------------------------------------------- a loop's sockets
#
# A file descriptor that a service watches on its loop's epoll. Owned by the service; it stays at
# one address while it is watched. `on_ready` runs on the loop's thread between enter and flush,
# with epoll's event bits; a spurious call is allowed, the descriptor is non-blocking.
ctypedef struct socket_watch_t:
    int32_t watched              # the loop's own mark: set by `watch`
    int32_t fd
    void* context
    void (*on_ready)(void* context, uint32_t events, int64_t now_ns) noexcept nogil

# Given to a service by its loop.
ctypedef struct watcher_t:
    void* loop
    # epoll_ctl: `events` are epoll's bits, `operation` EPOLL_CTL_ADD, MOD or DEL. Returns 0 or -1.
    int32_t (*watch)(
        void* loop, socket_watch_t* socket, uint32_t events, int32_t operation
    ) noexcept nogil

# What a loop serves. One service_t per loop thread; every function runs on that thread.
ctypedef struct service_t:
    void* context
    # Index of a method (":path", for example "/scoregate.v1.Scoring/Score"), or -1: UNIMPLEMENTED.
    int32_t (*find_method)(void* context, const char* path, size_t n_path) noexcept nogil
    # Takes one message (without its gRPC prefix; borrowed for the length of this call). May
    # complete the call at once, or keep it until flush.
    void (*on_call)(
        void* context, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
    ) noexcept nogil
    # End of a loop iteration: completes everything that is ready.
    void (*flush)(void* context, int64_t now_ns) noexcept nogil
    # Bounds of an iteration, for safe reclamation of serving plans: between the two, the
    # service may hold pointers into a plan; after leave it holds none (see plan.pyx).
    void (*enter)(void* context) noexcept nogil
    void (*leave)(void* context) noexcept nogil
    # The three below may be NULL.
    # Monotonic time at which the service wants an iteration (enter, flush, leave) although nothing
    # arrived; INT64_MAX: at no time. Asked before each wait; may lie in the past.
    int64_t (*wake_ns)(void* context) noexcept nogil
    # First and last thing on the loop's thread. `watcher` stays valid between the two.
    void (*attach)(void* context, const watcher_t* watcher, int64_t now_ns) noexcept nogil
    void (*detach)(void* context) noexcept nogil
