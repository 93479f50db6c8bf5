"""The methods of the fast door: scoring by the engine, the rest from the plan.

* `scoregate.v1.Scoring/Score` goes to the engine.
* `scoregate.v1.Scoring/GetModel` is answered with the description that the plan carries, encoded
  when the plan was built.
* `grpc.health.v1.Health/Check` says whether this process serves: as a whole (empty name), or by
  the Scoring service's name. `Watch` is UNIMPLEMENTED, which the health protocol allows.

Every other method is unknown here and becomes UNIMPLEMENTED in the transport.
"""

from fastpath._types cimport (
    STATUS_INVALID_ARGUMENT,
    STATUS_NOT_FOUND,
    STATUS_OK,
    STATUS_UNAVAILABLE,
    call_t,
    span_t,
    watcher_t,
)
from fastpath.c.atomic cimport __ATOMIC_RELAXED, load_i32
from fastpath.engine cimport (
    Engine,
    engine_attach,
    engine_detach,
    engine_enter,
    engine_flush,
    engine_leave,
    engine_score,
    engine_wake_ns,
)
from fastpath.plan cimport find_model, plan_model_t
from fastpath.protobuf cimport MAX_DEPTH, WIRE_BYTES, is_utf8, read_span, read_tag, skip_value
from fastpath.rows cimport engine_t
from fastpath.service cimport Service

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, strlen

cdef enum:
    METHOD_SCORE = 0
    METHOD_GET_MODEL = 1
    METHOD_HEALTH = 2
    N_METHODS = 3

cdef const char** METHOD_PATHS = [
    "/scoregate.v1.Scoring/Score",
    "/scoregate.v1.Scoring/GetModel",
    "/grpc.health.v1.Health/Check",
]
METHODS = tuple([METHOD_PATHS[i].decode() for i in range(N_METHODS)])

cdef const char* SCORING_SERVICE = "scoregate.v1.Scoring"
cdef const char* MALFORMED = "the message is not valid protobuf, or its text is not UTF-8"
cdef const char* NO_SUCH_SERVICE = "this server does not serve that; ask for scoregate.v1.Scoring"
cdef const char* NO_SUCH_MODEL = "that model is not served; leave the name empty for the default"
cdef const char* NOTHING_SERVED = "no model is served yet; ask /readyz on the sidecar port why"

# HealthCheckResponse, encoded: status (field 1) SERVING = 1 or NOT_SERVING = 2.
cdef const uint8_t* HEALTHY = b"\x08\x01"
cdef const uint8_t* UNHEALTHY = b"\x08\x02"


cdef int32_t _find_method(void* context, const char* path, size_t n_path) noexcept nogil:
    cdef int32_t method
    for method in range(N_METHODS):
        if strlen(METHOD_PATHS[method]) == n_path:
            if memcmp(METHOD_PATHS[method], path, n_path) == 0:
                return method
    return -1


cdef void _fail(call_t* call, int32_t status, const char* text) noexcept nogil:
    call.complete(call, status, NULL, 0, text, strlen(text))


cdef bint _read_name(const uint8_t* message, size_t n_message, span_t* name) noexcept nogil:
    """Read a message whose only field of interest is string 1; False where it is malformed."""
    cdef const uint8_t* at = message
    cdef const uint8_t* end = message + n_message
    cdef uint32_t tag = 0
    name.data = message
    name.size = 0
    while at is not NULL and at < end:
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return False
        if tag == ((1 << 3) | WIRE_BYTES):
            at = read_span(at, end, name)
            if at is not NULL and not is_utf8(name[0]):
                return False
        else:
            at = skip_value(at, end, tag, MAX_DEPTH)
    return at is not NULL or n_message == 0


cdef void _get_model(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message
) noexcept nogil:
    cdef span_t name
    cdef const plan_model_t* model
    cdef int32_t index
    if not _read_name(message, n_message, &name):
        _fail(call, STATUS_INVALID_ARGUMENT, MALFORMED)
    elif engine.plan is NULL:
        _fail(call, STATUS_UNAVAILABLE, NOTHING_SERVED)
    else:
        index = find_model(engine.plan, name.data, name.size)
        if index < 0:
            _fail(call, STATUS_NOT_FOUND, NO_SUCH_MODEL)
            return
        model = &engine.plan.models[index]
        call.complete(call, STATUS_OK, model.description.data, model.description.size, NULL, 0)


cdef void _check_health(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message
) noexcept nogil:
    cdef span_t name
    cdef bint serving
    if not _read_name(message, n_message, &name):
        _fail(call, STATUS_INVALID_ARGUMENT, MALFORMED)
        return
    if name.size != 0:
        if (name.size != strlen(SCORING_SERVICE)
                or memcmp(name.data, SCORING_SERVICE, name.size) != 0):
            _fail(call, STATUS_NOT_FOUND, NO_SUCH_SERVICE)
            return
    serving = engine.plan is not NULL and load_i32(&engine.board.serving, __ATOMIC_RELAXED) != 0
    call.complete(call, STATUS_OK, HEALTHY if serving else UNHEALTHY, 2, NULL, 0)


cdef void _on_call(
    void* context, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    if call.method == METHOD_SCORE:
        engine_score(<engine_t*> context, call, message, n_message, now_ns)
    elif call.method == METHOD_GET_MODEL:
        _get_model(<engine_t*> context, call, message, n_message)
    else:
        _check_health(<engine_t*> context, call, message, n_message)


cdef void _flush(void* context, int64_t now_ns) noexcept nogil:
    engine_flush(<engine_t*> context, now_ns)


cdef void _enter(void* context) noexcept nogil:
    engine_enter(<engine_t*> context)


cdef void _leave(void* context) noexcept nogil:
    engine_leave(<engine_t*> context)


cdef int64_t _wake_ns(void* context) noexcept nogil:
    return engine_wake_ns(<engine_t*> context)


cdef void _attach(void* context, const watcher_t* watcher, int64_t now_ns) noexcept nogil:
    engine_attach(<engine_t*> context, watcher, now_ns)


cdef void _detach(void* context) noexcept nogil:
    engine_detach(<engine_t*> context)


cdef class ScoringService(Service):
    """What one loop of the fast door serves.

    Parameters
    ----------
    board : PlanBoard
    metrics : Metrics
    thread : int
        Index of the loop.
    store : OnlineStore, optional
        Online records, of this loop alone; None: there are none.
    capture : Capture, optional
        Where decisions are captured; None: nowhere.
    ledger : Ledger, optional
        Where decisions are recorded for their outcomes; None: nowhere.
    """

    cdef readonly Engine engine

    def __cinit__(self, board, metrics, int thread, store=None, capture=None, ledger=None):
        self.engine = Engine(
            board, metrics, thread, store=store, capture=capture, ledger=ledger
        )
        self.table.context = self.engine.engine
        self.table.find_method = _find_method
        self.table.on_call = _on_call
        self.table.flush = _flush
        self.table.enter = _enter
        self.table.leave = _leave
        if store is not None:
            # Without one no row ever waits, and the loop need not ask.
            self.table.wake_ns = _wake_ns
            self.table.attach = _attach
            self.table.detach = _detach
