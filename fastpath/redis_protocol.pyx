"""The client's side of a Redis connection without its socket: RESP2, GETs in a pipeline.

Rules: bytes in, bytes out, replies to a callback; no socket, no clock, no allocation once a
connection's reader has grown to its replies. Redis and Valkey speak this protocol alike.

How it works: replies come in the order of the commands. Every GET takes the next sequence number,
and its token waits in a ring under that number; a reply takes the number whose turn it is. A GET
that timed out is *forgotten*: its token becomes NULL, its reply still takes its turn and is
dropped. So a late reply cannot be given to another read. Numbers go on from connection to
connection.

Replies are parsed by hiredis's reader with reply functions that make no objects: a value goes to
the callback straight from the reader's buffer. The handshake (AUTH, SELECT where they are needed,
PING always) is one pipelined write too; each of its replies is checked before a GET is asked.

Anything that a GET cannot be answered with (numbers, arrays, a status, a reply that nobody asked
for) ends the conversation: after it, nothing says which reply belongs to which command. So does a
reply of more than MAX_REPLY_BYTES.

What it does not do: commands other than these four; RESP3; pushes; redirections of a cluster.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, strlen

from fastpath.c.hiredis cimport (
    REDIS_OK,
    REDIS_REPLY_ERROR,
    REDIS_REPLY_STATUS,
    redisFormatCommandArgv,
    redisFreeCommand,
    redisReaderCreateWithFunctions,
    redisReaderFeed,
    redisReaderFree,
    redisReaderGetReply,
    redisReadTask,
)
from fastpath.metrics cimport add

from fastpath.errors import StoreError

cdef char* TOKEN = "reply"       # any address: hiredis wants an object per reply


# ---------------------------------------------------------------- the server's errors


cdef bint _starts(const char* text, size_t size, const char* word) noexcept nogil:
    cdef size_t n = strlen(word)
    return size >= n and memcmp(text, word, n) == 0


cdef int32_t _refusal(const char* text, size_t size) noexcept nogil:
    if _starts(text, size, b"WRONGTYPE"):
        return REFUSAL_WRONG_TYPE
    if _starts(text, size, b"OOM"):
        return REFUSAL_OUT_OF_MEMORY
    if _starts(text, size, b"LOADING") or _starts(text, size, b"MASTERDOWN"):
        return REFUSAL_LOADING
    if (_starts(text, size, b"NOAUTH") or _starts(text, size, b"WRONGPASS")
            or _starts(text, size, b"NOPERM")):
        return REFUSAL_NO_AUTH
    if _starts(text, size, b"READONLY"):
        return REFUSAL_READONLY
    return REFUSAL_OTHER


cdef int32_t _handshake_cause(int32_t step, int32_t refusal) noexcept nogil:
    if refusal == REFUSAL_LOADING:
        return CAUSE_LOADING
    if step == STEP_AUTH or refusal == REFUSAL_NO_AUTH:
        return CAUSE_AUTH
    return CAUSE_DATABASE if step == STEP_SELECT else CAUSE_REFUSED


# ---------------------------------------------------------------- replies, from hiredis


cdef void _fail(conversation_t* talk, int32_t cause) noexcept nogil:
    if not talk.failed:
        talk.failed = 1
        talk.cause = cause


cdef void _take_step(
    conversation_t* talk, bint is_status, const char* text, size_t size
) noexcept nogil:
    cdef int32_t step = talk.steps_left & -talk.steps_left
    talk.steps_left &= ~step
    if is_status:
        if not _starts(text, size, b"PONG" if step == STEP_PING else b"OK"):
            _fail(talk, CAUSE_PROTOCOL)
        return
    _fail(talk, _handshake_cause(step, _refusal(text, size)))
    talk.n_words = <int32_t> min(size, <size_t> MAX_WORDS_BYTES)
    memcpy(talk.words, text, talk.n_words)


cdef void _take(
    conversation_t* talk, int32_t reply, int32_t refusal, const char* data, size_t size
) noexcept nogil:
    # The reply whose turn it is.
    cdef void* token
    if talk.answered == talk.asked or talk.steps_left:
        _fail(talk, CAUSE_PROTOCOL)
        return
    token = talk.tokens[talk.answered & (MAX_OWED - 1)]
    talk.answered += 1
    add(&talk.n_replies, 1)
    if token == NULL:
        add(&talk.n_late, 1)
        return
    if reply == REPLY_ERROR:
        add(&talk.refusals[refusal], 1)
    talk.on_reply(
        talk.context, token, reply, refusal, <const uint8_t*> data, size, talk.now_ns
    )


cdef void* _on_string(const redisReadTask* task, char* text, size_t size) noexcept nogil:
    # Bulk strings, statuses and errors.
    cdef conversation_t* talk = <conversation_t*> task.privdata
    if talk.failed:
        return TOKEN
    if task.parent != NULL:
        _fail(talk, CAUSE_PROTOCOL)
    elif task.type == REDIS_REPLY_STATUS or task.type == REDIS_REPLY_ERROR:
        if talk.steps_left:
            _take_step(talk, task.type == REDIS_REPLY_STATUS, text, size)
        elif task.type == REDIS_REPLY_ERROR:
            _take(talk, REPLY_ERROR, _refusal(text, size), text, size)
        else:
            _fail(talk, CAUSE_PROTOCOL)
    else:
        _take(talk, REPLY_VALUE, 0, text, size)
    return TOKEN


cdef void* _on_nil(const redisReadTask* task) noexcept nogil:
    cdef conversation_t* talk = <conversation_t*> task.privdata
    if task.parent != NULL:
        _fail(talk, CAUSE_PROTOCOL)
    elif not talk.failed:
        _take(talk, REPLY_NIL, 0, NULL, 0)
    return TOKEN


cdef void* _on_integer(const redisReadTask* task, long long value) noexcept nogil:
    _fail(<conversation_t*> task.privdata, CAUSE_PROTOCOL)
    return TOKEN


cdef void* _on_array(const redisReadTask* task, size_t size) noexcept nogil:
    # 0.14 passes an int for `size`, which is not looked at.
    _fail(<conversation_t*> task.privdata, CAUSE_PROTOCOL)
    return TOKEN


cdef void _free_nothing(void* reply) noexcept nogil:
    pass


# ---------------------------------------------------------------- the conversation


cdef void conversation_init(conversation_t* talk) noexcept nogil:
    talk.functions.createString = _on_string
    talk.functions.createArray = <void*> _on_array
    talk.functions.createInteger = _on_integer
    talk.functions.createNil = _on_nil
    talk.functions.freeObject = _free_nothing


cdef void conversation_clear(conversation_t* talk) noexcept nogil:
    if talk.reader != NULL:
        redisReaderFree(talk.reader)
        talk.reader = NULL


cdef int32_t conversation_begin(conversation_t* talk) noexcept nogil:
    conversation_clear(talk)
    talk.failed = 0
    talk.n_words = 0
    talk.steps_left = talk.steps
    talk.n_sent = 0
    talk.n_output = talk.n_handshake
    memcpy(talk.output, talk.handshake, talk.n_handshake)
    talk.reader = redisReaderCreateWithFunctions(&talk.functions)
    if talk.reader == NULL:
        return -1
    talk.reader.privdata = talk
    talk.reader.maxbuf = 0       # keeps its buffer when that is empty
    return 0


cdef int64_t conversation_ask(
    conversation_t* talk, const uint8_t* key, size_t n_key, void* token
) noexcept nogil:
    cdef uint8_t* out
    cdef size_t size = talk.n_prefix + n_key
    cdef int64_t sequence = talk.asked
    if talk.n_sent == talk.n_output:
        talk.n_sent = 0
        talk.n_output = 0
    if sequence - talk.answered == MAX_OWED:
        return -1
    if MAX_OUTPUT_BYTES - talk.n_output < size + 32:
        if MAX_OUTPUT_BYTES - (talk.n_output - talk.n_sent) < size + 32:
            return -1
        talk.n_output -= talk.n_sent
        memmove(talk.output, talk.output + talk.n_sent, talk.n_output)
        talk.n_sent = 0
    out = talk.output + talk.n_output
    memcpy(out, b"*2\r\n$3\r\nGET\r\n$", 14)
    out += 14
    if size >= 100:
        out[0] = <uint8_t> (48 + size // 100)
        out += 1
    if size >= 10:
        out[0] = <uint8_t> (48 + size // 10 % 10)
        out += 1
    out[0] = <uint8_t> (48 + size % 10)
    out[1] = c"\r"
    out[2] = c"\n"
    memcpy(out + 3, talk.prefix, talk.n_prefix)
    out += 3 + talk.n_prefix
    memcpy(out, key, n_key)
    out[n_key] = c"\r"
    out[n_key + 1] = c"\n"
    talk.n_output = <size_t> (out - talk.output) + n_key + 2
    talk.tokens[sequence & (MAX_OWED - 1)] = token
    talk.asked = sequence + 1
    return sequence


cdef int32_t conversation_feed(
    conversation_t* talk, const uint8_t* data, size_t size, int64_t now_ns
) noexcept nogil:
    cdef void* reply = NULL
    talk.now_ns = now_ns
    if redisReaderFeed(talk.reader, <const char*> data, size) != REDIS_OK:
        _fail(talk, CAUSE_MEMORY)
    while not talk.failed:
        if redisReaderGetReply(talk.reader, &reply) != REDIS_OK:
            _fail(talk, CAUSE_PROTOCOL)
        if reply == NULL:
            break
    if not talk.failed and talk.reader.len - talk.reader.pos > MAX_REPLY_BYTES:
        _take(talk, REPLY_ERROR, REFUSAL_TOO_LARGE, NULL, 0)
        _fail(talk, CAUSE_TOO_LARGE)
    return -1 if talk.failed else 0


cdef void conversation_end(conversation_t* talk, int64_t now_ns) noexcept nogil:
    cdef void* token
    conversation_clear(talk)
    talk.n_sent = 0
    talk.n_output = 0
    # The callbacks may forget, but not ask: there is no reader.
    while talk.answered < talk.asked:
        token = talk.tokens[talk.answered & (MAX_OWED - 1)]
        talk.answered += 1
        if token != NULL:
            talk.on_reply(talk.context, token, REPLY_LOST, 0, NULL, 0, now_ns)


# ---------------------------------------------------------------- for Python


ctypedef const char* word_t


cdef bytes _format(list words):
    cdef word_t[4] arguments
    cdef size_t[4] sizes
    cdef char* command = NULL
    cdef int n
    for i, word in enumerate(words):
        arguments[i] = <bytes> word
        sizes[i] = len(word)
    n = redisFormatCommandArgv(&command, len(words), arguments, sizes)
    if n < 0:
        raise MemoryError
    try:
        return PyBytes_FromStringAndSize(command, n)
    finally:
        redisFreeCommand(command)


cdef tuple format_handshake(str username, str password, int database):
    commands = []
    steps = STEP_PING
    if password:
        words = [b"AUTH", username.encode(), password.encode()]
        commands.append(_format(words if username else [words[0], words[2]]))
        steps |= STEP_AUTH
    if database:
        commands.append(_format([b"SELECT", str(database).encode()]))
        steps |= STEP_SELECT
    commands.append(_format([b"PING"]))
    handshake = b"".join(commands)
    if len(handshake) > MAX_OUTPUT_BYTES:
        raise StoreError(f"username and password: over {MAX_OUTPUT_BYTES} bytes")
    return handshake, steps


REPLIES = ("value", "nil", "error", "lost")
REFUSALS = (
    "wrong_type", "out_of_memory", "loading", "no_auth", "readonly", "too_large", "other",
)
CAUSES = (
    "closed", "timeout", "tls", "protocol", "too_large", "auth", "database", "loading", "refused",
    "memory",
)
assert len(REFUSALS) == N_REFUSALS and len(CAUSES) == N_CAUSES


cdef void _collect(
    void* context, void* token, int32_t reply, int32_t refusal, const uint8_t* data, size_t size,
    int64_t now_ns
) noexcept nogil:
    with gil:
        (<Conversation> context).replies.append((
            <int64_t> token - 1,
            REPLIES[reply],
            REFUSALS[refusal] if reply == REPLY_ERROR
            else (<const char*> data)[:size] if reply == REPLY_VALUE else None,
        ))


cdef class Conversation:
    """A conversation driven by hand: for tests.

    Parameters
    ----------
    prefix : bytes
        Put before every key; up to 128 bytes.
    username, password, database
        Of the handshake.
    """

    cdef conversation_t* talk
    cdef bytes handshake
    cdef list replies

    def __cinit__(self, bytes prefix=b"", str username="", str password="", int database=0):
        self.talk = <conversation_t*> calloc(1, sizeof(conversation_t))
        if self.talk == NULL:
            raise MemoryError
        if len(prefix) > MAX_PREFIX_BYTES:
            raise StoreError(f"prefix: {len(prefix)} bytes are over {MAX_PREFIX_BYTES}")
        self.replies = []
        self.handshake, self.talk.steps = format_handshake(username, password, database)
        self.talk.handshake = <const uint8_t*> <const char*> self.handshake
        self.talk.n_handshake = len(self.handshake)
        self.talk.on_reply = _collect
        self.talk.context = <void*> self
        memcpy(self.talk.prefix, <const char*> prefix, len(prefix))
        self.talk.n_prefix = len(prefix)
        conversation_init(self.talk)

    def __dealloc__(self):
        if self.talk != NULL:
            conversation_clear(self.talk)
            free(self.talk)

    def begin(self):
        """Start a connection."""
        if conversation_begin(self.talk) != 0:
            raise MemoryError

    def ask(self, bytes key):
        """Return the sequence number of GET prefix+key, or -1: busy."""
        if not conversation_ready(self.talk):
            raise StoreError("ask: the handshake is not over")
        if not 1 <= len(key) <= 512:
            raise StoreError(f"key: {len(key)} bytes are not within 1..512")
        return conversation_ask(
            self.talk, key, len(key), <void*> (self.talk.asked + 1)
        )

    def forget(self, int64_t sequence):
        """Drop the reply to this GET when it comes."""
        if not 0 <= sequence < self.talk.asked:
            raise StoreError(f"sequence: {sequence} was never asked")
        conversation_forget(self.talk, sequence)

    def output(self):
        """Return the bytes that are to be sent, as if they had been."""
        cdef size_t start = self.talk.n_sent
        self.talk.n_sent = self.talk.n_output
        return (<const char*> self.talk.output + start)[:self.talk.n_output - start]

    def feed(self, bytes data, int64_t now_ns=0):
        """Take bytes from the server; return whether the conversation goes on."""
        if self.talk.reader == NULL:
            raise StoreError("feed: there is no connection")
        return conversation_feed(self.talk, data, len(data), now_ns) == 0

    def end(self):
        """The connection is gone."""
        conversation_end(self.talk, 0)

    def take(self):
        """Return the replies since the last call: (sequence, reply, value or refusal)."""
        replies, self.replies = self.replies, []
        return replies

    @property
    def ready(self):
        """Whether the handshake is over."""
        return bool(conversation_ready(self.talk))

    @property
    def owed(self):
        """Replies that the server owes."""
        return conversation_owed(self.talk)

    @property
    def n_late(self):
        """Replies to GETs that were forgotten."""
        return self.talk.n_late

    @property
    def cause(self):
        """Why the conversation failed, one of CAUSES, or None."""
        return CAUSES[self.talk.cause] if self.talk.failed else None

    @property
    def words(self):
        """What the server said where it refused the handshake."""
        return self.talk.words[:self.talk.n_words].decode(errors="replace")
