"""An online store that answers as it is told: for tests and for trying out faults.

Rules: each key has a script: after how long which outcome comes, with which record. A delay of 0
answers within `get`; a longer one when `flush` is called at or after its time; one of None never.
A read that was abandoned is forgotten and its answer dropped. Time is what the caller says: no
clock, no socket.

It holds Python objects and takes the GIL: not for serving.
"""

from fastpath.errors import FastpathError

from fastpath._types cimport OUTCOME_ABSENT, OUTCOME_HIT, OUTCOME_PENDING, span_t
from fastpath.store cimport BatchTable, OnlineStore, read_t

from fastpath.store import OUTCOMES

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uintptr_t


cdef class ScriptedStore(OnlineStore):
    """An online store of scripted answers.

    Attributes
    ----------
    asked : list of bytes
        Keys, in the order of their reads.
    abandoned : list of (bytes, bool)
        Keys of reads that were given up, and whether they had timed out.
    n_flushes : int
    """

    cdef readonly list asked
    cdef readonly list abandoned
    cdef readonly int n_flushes
    cdef dict scripts
    cdef list pending            # (due_ns, key, address of the read_t)

    def __cinit__(self, *, bint may_wait=True):
        self.asked = []
        self.abandoned = []
        self.scripts = {}
        self.pending = []
        self.table.impl = <void*> self
        self.table.may_wait = may_wait
        self.table.get = _get
        self.table.abandon = _abandon
        self.table.flush = _flush
        self.table.wake_ns = _wake_ns

    def set(self, bytes key not None, bytes record=None, *, str outcome="", delay_ns=0):
        """Say what the reads of a key become.

        Parameters
        ----------
        key : bytes
        record : bytes, optional
            What a hit finds.
        outcome : str
            One of `fastpath.store.OUTCOMES`; by default "hit" with a record, else "absent".
        delay_ns : int or None
            From the read to its answer; 0: at once; None: never.
        """
        name = outcome or ("absent" if record is None else "hit")
        if (delay_ns is None or delay_ns > 0) and not self.table.may_wait:
            raise FastpathError("a store that never waits cannot delay")
        self.scripts[key] = (OUTCOMES.index(name), record or b"", delay_ns)


cdef int32_t _get(
    void* impl, const uint8_t* key, size_t n_key, read_t* read, int64_t now_ns, span_t* out
) noexcept with gil:
    cdef ScriptedStore store = <ScriptedStore> impl
    cdef bytes name = key[:n_key]
    cdef bytes record
    store.asked.append(name)
    outcome, record, delay_ns = store.scripts.get(name, (OUTCOME_ABSENT, b"", 0))
    if delay_ns == 0:
        out.data = <const uint8_t*> <const char*> record
        out.size = len(record)
        return outcome
    due_ns = INT64_MAX if delay_ns is None else now_ns + delay_ns
    store.pending.append((due_ns, name, <uintptr_t> read))
    return OUTCOME_PENDING


cdef void _abandon(void* impl, read_t* read, int32_t timed_out, int64_t now_ns) noexcept with gil:
    cdef ScriptedStore store = <ScriptedStore> impl
    for waiting in store.pending:
        if waiting[2] == <uintptr_t> read:
            store.pending.remove(waiting)
            store.abandoned.append((waiting[1], bool(timed_out)))
            return


cdef void _flush(void* impl, int64_t now_ns) noexcept with gil:
    cdef ScriptedStore store = <ScriptedStore> impl
    cdef read_t* read
    cdef bytes record
    store.n_flushes += 1
    for waiting in sorted(store.pending):
        if waiting[0] <= now_ns:
            store.pending.remove(waiting)
            outcome, record, _ = store.scripts[waiting[1]]
            read = <read_t*> <uintptr_t> waiting[2]
            read.done(
                read, outcome,
                <const uint8_t*> <const char*> record if outcome == OUTCOME_HIT else NULL,
                len(record) if outcome == OUTCOME_HIT else 0, now_ns,
            )


cdef int64_t _wake_ns(void* impl) noexcept with gil:
    cdef ScriptedStore store = <ScriptedStore> impl
    return min([waiting[0] for waiting in store.pending], default=INT64_MAX)


cdef class ScriptedBatch(BatchTable):
    """A batch table of given records."""

    cdef dict records

    def __cinit__(self, records):
        self.records = dict(records)
        self.table.impl = <void*> self
        self.table.get = _get_batch


cdef int32_t _get_batch(
    void* impl, int32_t thread, const uint8_t* key, size_t n_key, span_t* out
) noexcept with gil:
    cdef ScriptedBatch batch = <ScriptedBatch> impl
    cdef bytes record = batch.records.get(key[:n_key])
    if record is None:
        return OUTCOME_ABSENT
    out.data = <const uint8_t*> <const char*> record
    out.size = len(record)
    return OUTCOME_HIT
