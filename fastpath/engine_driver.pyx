"""Driving an engine step by step: calls that come, time that passes, callers that go away.

For tests and tools. Where `Engine.answer` is one conversation from its beginning to its end, a
driver keeps calls open between iterations, as a loop does while rows wait for a store."""

from fastpath.errors import FastpathError

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uintptr_t
from libc.stdlib cimport calloc, free

from fastpath._types cimport call_t
from fastpath.engine cimport (
    Engine,
    engine_enter,
    engine_flush,
    engine_leave,
    engine_score,
    engine_wake_ns,
)


cdef class EngineDriver:
    """The loop's side of one engine, by hand.

    Parameters
    ----------
    engine : Engine
        Driven by this object alone.

    Attributes
    ----------
    n_open : int
        Calls that were submitted and not completed.
    """

    cdef Engine engine
    cdef dict calls              # ticket -> address of its call_t
    cdef list done
    cdef int64_t next_ticket

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        self.calls = {}
        self.done = []
        self.next_ticket = 1

    def __dealloc__(self):
        for address in self.calls.values():
            free(<void*> <uintptr_t> address)

    def submit(self, bytes message not None, *, int64_t now_ns, deadline_ns=None):
        """Hand one ScoreRequest over, in an iteration that `iterate` has to end.

        Parameters
        ----------
        message : bytes
        now_ns : int
            Monotonic time of its arrival.
        deadline_ns : int, optional

        Returns
        -------
        int
            The call's ticket.
        """
        cdef call_t* call = <call_t*> calloc(1, sizeof(call_t))
        if call is NULL:
            raise MemoryError
        ticket = self.next_ticket
        self.next_ticket += 1
        self.calls[ticket] = <uintptr_t> call
        call.complete = _complete
        call.owner = <void*> self
        call.arrival_ns = now_ns
        call.deadline_ns = INT64_MAX if deadline_ns is None else deadline_ns
        engine_enter(self.engine.engine)
        engine_score(
            self.engine.engine, call, <const uint8_t*> <const char*> message, len(message), now_ns
        )
        # A loop leaves after the flush; here the rows of several submits share one flush, so the
        # plan is left pinned until `iterate`.
        return ticket

    def iterate(self, *, int64_t now_ns):
        """End an iteration: flush and leave.

        Returns
        -------
        list of (int, int, bytes, str)
            Ticket, gRPC status, encoded answer and error text of every call completed since the
            last time.
        """
        engine_enter(self.engine.engine)
        engine_flush(self.engine.engine, now_ns)
        engine_leave(self.engine.engine)
        done = self.done
        self.done = []
        return done

    def cancel(self, int ticket):
        """The caller of an open call goes away."""
        if ticket not in self.calls:
            raise FastpathError(f"call {ticket} is not open")
        (<call_t*> <uintptr_t> self.calls[ticket]).cancelled = 1

    @property
    def n_open(self):
        return len(self.calls)

    @property
    def wake_ns(self):
        """When the engine wants to be iterated; None: at no time."""
        wake_ns = engine_wake_ns(self.engine.engine)
        return None if wake_ns == INT64_MAX else wake_ns


cdef void _complete(
    call_t* call, int32_t status, const uint8_t* body, size_t n_body, const char* text,
    size_t n_text
) noexcept with gil:
    cdef EngineDriver driver = <EngineDriver> call.owner
    ticket = next(t for t, address in driver.calls.items() if address == <uintptr_t> call)
    del driver.calls[ticket]
    driver.done.append((ticket, status, body[:n_body], text[:n_text].decode()))
    free(call)
