from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from fastpath.c.hiredis cimport redisReader, redisReplyObjectFunctions

cdef enum:
    MAX_OWED = 8192              # replies that one connection may owe; a power of two
    MAX_OUTPUT_BYTES = 524288    # commands that the kernel has not taken yet
    MAX_REPLY_BYTES = 1048576    # of one incomplete reply
    MAX_PREFIX_BYTES = 128
    MAX_HEAD_BYTES = 192         # everything of a GET before the key's own bytes
    MAX_WORDS_BYTES = 200

# What became of one GET.
cdef enum reply_t:
    REPLY_VALUE = 0
    REPLY_NIL = 1
    REPLY_ERROR = 2              # the server's error; see refusal_t
    REPLY_LOST = 3               # the connection ended first

# Why the server refused a GET: the first word of its error.
cdef enum refusal_t:
    REFUSAL_WRONG_TYPE = 0
    REFUSAL_OUT_OF_MEMORY = 1
    REFUSAL_LOADING = 2
    REFUSAL_NO_AUTH = 3
    REFUSAL_READONLY = 4
    REFUSAL_TOO_LARGE = 5        # ours: a reply above MAX_REPLY_BYTES
    REFUSAL_OTHER = 6
    N_REFUSALS = 7

# Why a conversation, or its connection, came to its end.
cdef enum cause_t:
    CAUSE_SOCKET = 0             # refused, reset, closed by the server
    CAUSE_TIMEOUT = 1            # connecting took too long; no progress while replies were owed
    CAUSE_TLS = 2
    CAUSE_PROTOCOL = 3           # not RESP2, or a reply that no command asked for
    CAUSE_TOO_LARGE = 4
    CAUSE_AUTH = 5
    CAUSE_DATABASE = 6           # SELECT was refused
    CAUSE_LOADING = 7            # the server reads its data, or has lost its primary
    CAUSE_REFUSED = 8            # another error in the handshake
    CAUSE_MEMORY = 9
    N_CAUSES = 10

# Steps of the handshake, in order.
cdef enum step_t:
    STEP_AUTH = 1
    STEP_SELECT = 2
    STEP_PING = 4


ctypedef void* token_t

# One reply, exactly once per GET that was not forgotten. `refusal` is set with REPLY_ERROR; `data`
# is the conversation's, valid during the call only. May ask and forget.
ctypedef void (*on_reply_fn)(
    void* context, void* token, int32_t reply, int32_t refusal, const uint8_t* data, size_t size,
    int64_t now_ns
) noexcept nogil


# The client's side of one connection after another. One thread.
ctypedef struct conversation_t:
    on_reply_fn on_reply
    void* context
    const uint8_t* handshake     # commands of the handshake; the owner's
    size_t n_handshake
    int32_t steps                # step_t bits that `handshake` holds
    int32_t steps_left           # of this connection
    int32_t failed               # the bytes since are not looked at
    int32_t cause                # cause_t, where failed
    int32_t n_words              # the server's own words, where it refused a handshake
    char[MAX_WORDS_BYTES] words
    redisReader* reader          # NULL: no connection
    redisReplyObjectFunctions functions
    int64_t asked                # GETs so far: the sequence number of the next one
    int64_t answered             # replies so far: the sequence number of the next one
    int64_t now_ns               # during conversation_feed
    uint64_t n_replies
    uint64_t n_late              # replies to GETs that were forgotten
    uint64_t[N_REFUSALS] refusals
    token_t[MAX_OWED] tokens       # by sequence number; NULL: forgotten
    uint8_t[MAX_HEAD_BYTES] prefix
    size_t n_prefix
    size_t n_sent                # of `output`
    size_t n_output
    uint8_t[MAX_OUTPUT_BYTES] output  # n_sent .. n_output is to be sent


# Zeroed memory on entry; on_reply, context, handshake, n_handshake, steps and prefix are filled.
cdef void conversation_init(conversation_t* talk) noexcept nogil
# Frees what it owns; no callbacks.
cdef void conversation_clear(conversation_t* talk) noexcept nogil
# A new connection: puts the handshake into `output`. Returns 0, or -1: no memory.
cdef int32_t conversation_begin(conversation_t* talk) noexcept nogil
# Whether the handshake is over and GETs may be asked.
cdef inline bint conversation_ready(conversation_t* talk) noexcept nogil:
    return talk.reader != NULL and talk.steps_left == 0 and not talk.failed
cdef inline int64_t conversation_owed(conversation_t* talk) noexcept nogil:
    return talk.asked - talk.answered
# Appends GET prefix+key. Returns its sequence number, or -1: too many are on their way. `token` is
# not NULL.
cdef int64_t conversation_ask(
    conversation_t* talk, const uint8_t* key, size_t n_key, void* token
) noexcept nogil
# The reply will be dropped when it comes. Does nothing when it came.
cdef inline void conversation_forget(conversation_t* talk, int64_t sequence) noexcept nogil:
    if sequence >= talk.answered:
        talk.tokens[sequence & (MAX_OWED - 1)] = NULL
# Takes bytes from the server, calls on_reply for whole replies. Returns 0, or -1: the connection
# must be closed, `cause` says why.
cdef int32_t conversation_feed(
    conversation_t* talk, const uint8_t* data, size_t size, int64_t now_ns
) noexcept nogil
# The connection is gone: every GET that is owed and not forgotten gets REPLY_LOST.
cdef void conversation_end(conversation_t* talk, int64_t now_ns) noexcept nogil
# The handshake's commands, formatted by hiredis, and their step_t bits: (bytes, int).
cdef tuple format_handshake(str username, str password, int database)
