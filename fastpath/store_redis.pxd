from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from fastpath._types cimport MAX_KEY_BYTES
from fastpath.breaker cimport breaker_t
from fastpath.record_cache cimport cache_t
from fastpath.redis_link cimport link_t
from fastpath.redis_tls cimport TlsContext
from fastpath.store cimport OnlineStore, read_t

cdef enum:
    MAX_PENDING = 4096           # reads that wait for a reply
    N_LINKS = 2
    PRIMARY = 0
    REPLICA = 1


# One read that waits. The store's slot; the conversations' token.
cdef struct waiting_t:
    read_t* read
    int64_t ticket               # the breaker's
    int64_t asked_ns
    int64_t[N_LINKS] sequences   # of the GET on each link; -1: not asked there, or lost
    waiting_t* next              # free list, or hedge list, whose oldest is first
    waiting_t* previous
    int32_t to_hedge             # stands in the hedge list
    int32_t n_key
    uint8_t[MAX_KEY_BYTES] key


ctypedef link_t* link_p

# One loop thread's store. Fixed memory, allocated once.
ctypedef struct redis_t:
    link_p[N_LINKS] links       # the replica's is NULL where there is none
    breaker_t breaker
    cache_t cache
    int64_t hedge_after_ns       # 0: off
    int64_t now_ns               # of the last flush
    int64_t n_pending
    int32_t n_slots              # that were ever taken
    uint64_t n_hedged
    uint64_t n_hedge_wins
    uint64_t n_failovers
    waiting_t* free_slots
    waiting_t* oldest            # hedge list
    waiting_t* newest
    waiting_t[MAX_PENDING] slots


cdef class RedisStore(OnlineStore):
    cdef redis_t* store
    cdef bytes _handshake        # that the conversations point to
    cdef list _tls               # TlsContext per link, or None
    cdef readonly str address
    cdef readonly str replica
