"""The structs that the generator's rooms share. One thread owns all of them while a run lasts."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from bench.arena cimport arena_t
from bench.hdr cimport hist_t
from fastpath.c.nghttp2 cimport (
    nghttp2_nv,
    nghttp2_option,
    nghttp2_session,
    nghttp2_session_callbacks,
)

cdef enum:
    N_HEADERS = 8                # of a request
    N_STATUSES = 17              # gRPC's 0 to 16
    N_TEXT = 256                 # of the first error's message that is kept
    N_SERIES_BUCKETS = 1152      # of the running second's histogram

# How a call can end without a gRPC status, in the order of outcome.CALL_CAUSES.
cdef enum:
    CAUSE_CLOSED                 # the server closed the connection
    CAUSE_GOAWAY                 # not processed, the server's GOAWAY says
    CAUSE_RESET                  # RST_STREAM
    CAUSE_GARBAGE                # the connection's bytes are not HTTP/2
    CAUSE_TIMED_OUT              # nothing within the timeout
    CAUSE_HTTP_STATUS            # :status is not 200
    CAUSE_NO_STATUS              # ended without grpc-status, or with a senseless one
    CAUSE_MESSAGE                # OK, but not exactly one whole uncompressed message
    CAUSE_NO_STREAM              # never sent: no stream was free in time
    CAUSE_NO_CONNECTION          # never sent: no connection was open in time
    CAUSE_INTERNAL               # never sent: nghttp2 or the memory refused
    N_CALL_CAUSES
    ANSWERED = -1                # with a gRPC status

# How a connection can end, in the order of outcome.CONNECTION_CAUSES.
cdef enum:
    LOST_REFUSED
    LOST_CONNECT                 # any other failure to connect
    LOST_CONNECT_TIMEOUT
    LOST_CLOSED
    LOST_RESET
    LOST_GARBAGE
    LOST_AFTER_GOAWAY            # the server asked us to go, and everything was answered
    LOST_INTERNAL                # no socket or no memory on our side
    N_CONNECTION_CAUSES

cdef enum:
    CHECK_NONE
    CHECK_BYTES
    CHECK_SCORE

cdef enum:
    DOWN                         # waits until retry_ns
    CONNECTING
    OPEN

cdef enum:
    ENDED_DONE                   # everything was sent and answered or given up
    ENDED_STOPPED                # the caller asked
    ENDED_SILENT                 # no answer for give_up_ns

ctypedef struct method_t:
    nghttp2_nv[N_HEADERS] headers
    int32_t n_headers

ctypedef struct message_t:
    const uint8_t* framed        # gRPC prefix and body; the Generator owns it
    size_t n_framed
    const uint8_t* expected      # CHECK_BYTES: the whole answer without prefix
    size_t n_expected
    uint32_t expected_raw        # CHECK_SCORE: the bits of field 2
    int32_t check
    int32_t method

ctypedef struct call_t:
    call_t* next                 # free slots; calls in flight: the next younger one
    call_t* previous             # calls in flight: the next older one
    call_t* next_unsent          # submitted since the connection's last send
    connection_t* connection
    const message_t* message
    int64_t message_index
    int64_t intended_ns
    int64_t ready_ns             # when the call was due and a stream was free
    int64_t sent_ns              # 0: not yet
    int64_t deadline_ns          # when we stop waiting
    size_t n_taken               # of the request, by nghttp2
    size_t n_body                # of the answer's message, so far
    size_t n_announced           # by its prefix
    uint8_t* body                # the answer, where it is checked
    size_t body_bytes            # capacity; the slot keeps it
    int32_t stream_id
    int32_t http_status
    int32_t grpc_status          # -1: none seen
    int32_t n_prefix             # bytes of the answer's prefix seen
    uint8_t[8] prefix
    int32_t is_in_flight
    int32_t is_measured
    int32_t is_checked
    int32_t is_malformed         # a second message, a compressed one, one too large

ctypedef struct connection_t:
    load_t* load
    nghttp2_session* session     # NULL unless OPEN
    call_t* first_unsent
    call_t* last_unsent
    connection_t* next_dirty     # has something to send
    int32_t is_dirty
    uint8_t* pending             # what the kernel did not take; OUTPUT_BYTES, made when needed
    size_t n_pending
    size_t pending_sent
    int64_t retry_ns             # DOWN: when to connect; CONNECTING: when to give up
    int64_t backoff_ns
    uint32_t events              # that epoll watches
    int fd                       # -1: none
    int32_t state
    int32_t n_active             # streams that nghttp2 still knows
    int32_t n_free               # streams that may be opened now, as counted in load.n_free
    int32_t has_settings         # the server's were seen
    int32_t is_going             # GOAWAY seen
    int32_t is_garbled           # we ended it: the other side does not speak HTTP/2
    int32_t has_opened           # at least once
    int32_t last_lost            # LOST_*, of its last end; -1 = never lost

# Written by the load's thread only, read by others at any time.
ctypedef struct counters_t:
    int64_t n_sent
    int64_t n_answered
    int64_t n_queued             # measured calls that found no free stream when they were due
    int64_t n_late               # sent more than late_ns after they could have been
    int64_t n_checked
    int64_t n_wrong
    int64_t n_reconnects
    int64_t n_warmup             # calls before the measurement
    int64_t[N_STATUSES] statuses
    int64_t[N_CALL_CAUSES] causes
    int64_t[N_CONNECTION_CAUSES] lost

# One second of the series.
ctypedef struct second_t:
    int64_t n_calls              # ended in this second
    int64_t n_errors
    int64_t p50_ns
    int64_t p99_ns
    int64_t max_ns

ctypedef struct load_t:
    # What is asked.
    method_t* methods
    message_t* messages
    int64_t n_messages
    connection_t* connections
    int32_t n_connections
    int32_t n_streams
    int64_t timeout_ns           # with slack
    int64_t max_queue_ns
    int64_t spin_ns              # polled before a due call
    int64_t poll_ns              # polled after the last event before it blocks
    int64_t late_ns
    int64_t stall_ns
    int64_t give_up_ns
    int64_t connect_ns
    uint64_t seed
    uint64_t check_below         # an answer is checked when its call's hash is below
    int32_t is_random
    int32_t is_open
    const int64_t* times_ns      # open loop: ascending, from start_ns
    int64_t n_times
    int64_t n_limit              # closed loop: measured calls; -1 = by time
    int64_t duration_ns          # closed loop by time
    int64_t warmup_ns
    uint8_t[128] address         # a sockaddr
    uint32_t n_address
    int32_t family

    # Machinery.
    nghttp2_session_callbacks* callbacks
    nghttp2_option* option
    arena_t arena
    int epoll_fd
    int timer_fd
    int64_t armed_ns             # what the timer is set to; 0: nothing
    uint8_t* input
    uint8_t* output
    call_t* slots                # n_connections * n_streams
    call_t* free_slots
    call_t* oldest
    call_t* newest
    connection_t* dirty

    # The run.
    int64_t stop                 # atomic: the caller asks for the end
    int64_t now_ns
    int64_t start_ns
    int64_t measure_ns           # start_ns + warmup_ns
    int64_t end_ns               # closed loop by time: the last moment of sending
    int64_t last_end_ns          # of a measured call
    int64_t next_index           # of the next call
    int64_t n_measured           # measured calls that were begun
    int64_t free_since_ns        # when a stream became free after none was
    int64_t heard_ns             # last answer, or since when something is awaited
    int64_t cpu_start_ns         # this thread's CPU when the measurement began
    int64_t cpu_end_ns
    int64_t tick_ns
    int64_t active_ns            # the last event
    int64_t woke_ns              # when the last wait ended
    int64_t idle_ns              # in waits and in turns that did nothing, since measuring
    int32_t was_busy             # the running turn has read something or begun a call
    int32_t n_free               # over all connections
    int32_t n_open
    int32_t n_in_flight
    int32_t is_running           # connections are made, calls may begin
    int32_t is_measuring
    int32_t was_answered         # the last call to end was
    int32_t next_connection
    int32_t ended                # ENDED_*
    int32_t is_over
    int32_t last_errno           # of the last failure to connect

    # What is found.
    counters_t counters
    hist_t* latency
    hist_t* service
    hist_t* lag
    second_t* seconds
    int64_t n_seconds
    int64_t max_seconds
    second_t second              # the running one
    uint32_t[N_SERIES_BUCKETS] second_counts
    int64_t clock_offset_ns
    int64_t clock_jump_ns
    int64_t n_stalls
    int64_t longest_stall_ns
    int32_t fewest_streams       # that a server's SETTINGS granted
    int32_t first_error          # gRPC status; 0 = none yet
    int32_t n_first_text
    uint8_t[N_TEXT] first_text
    int64_t wrong_index          # message of the first wrong answer; -1 = none
    uint8_t* wrong_body          # a copy of that answer
    size_t n_wrong_body
