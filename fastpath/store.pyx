"""Where stored features come from, as the engine sees it: two interfaces, no code.

`OnlineStore` is one loop thread's view of the online records; a read ends at once (an embedded
store) or later (a store on the network). `BatchTable` is one immutable generation of one group's
batch records, shared by all threads. The engine knows these interfaces and no store; a test can be
one.
"""

from fastpath._types cimport N_OUTCOMES

OUTCOMES = (
    "not_read", "hit", "absent", "stale", "no_entity", "foreign", "malformed", "timeout",
    "unreachable", "refused", "breaker", "busy", "failed",
)
assert len(OUTCOMES) == N_OUTCOMES


cdef class OnlineStore:
    """Base of the online stores. By itself it holds nothing and can be asked nothing."""

    def stats(self):
        """Return the store's counters, read while its thread runs.

        Returns
        -------
        dict of str to int
            Empty for a store that keeps none. `redis` documents its own.
        """
        return {}


cdef class BatchTable:
    """Base of the batch tables. By itself it holds nothing and can be asked nothing."""

    @property
    def generation(self):
        """Name of the generation that this table is; empty where it has none."""
        return ""
