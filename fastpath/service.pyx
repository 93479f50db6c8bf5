"""The base class of everything that a loop can serve.

A service is a table of C functions (`service_t`) and the state behind them. Each loop
thread gets a service object of its own, so a service needs no locks. `scoring` is the product's;
`echo` is the yardstick that it is measured against.
"""


cdef class Service:
    """A table of C functions that one loop thread calls.

    Not usable by itself: a subclass fills `table` in its `__cinit__`.
    """
