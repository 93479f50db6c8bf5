"""Online records in Redis (or Valkey), read from a loop without waiting for them.

Rules: one store per loop thread, with connections of its own. A read never waits for a connection:
it is answered at once with UNREACHABLE where there is none, BREAKER while the circuit breaker is
open, BUSY where MAX_PENDING reads or a full pipeline are waiting. Otherwise it is pending and ends
exactly once: by its reply, by the loss of its connection, or by the caller's `abandon`. Steady
state allocates nothing.

How it works: `get` appends a GET to the connection's output; `flush` sends an iteration's GETs in
one write; replies are matched in order (`redis_protocol`). A read that timed out leaves its place
in the order behind, so a late reply is dropped and counted. `redis_link` discards a connection
that is stuck.

A replica, where there is one, has a connection of its own. It is asked at once while the primary
is not connected, and with `hedge_after_us` also when the primary has been silent that long: the
first answer wins, the other one is dropped. A replica may lag behind: a record's event time says
how old it is.

The breaker counts time-outs, lost connections and refusals as failures, but not WRONGTYPE: the key
is at fault then, not the store. A hedged read that the replica answered is a success.

With `cache_bytes`, answers are kept for `cache_ttl_ms` and given again without asking
(`record_cache`), the breaker open or not.

What it does not do: clusters, Sentinel, writing.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastpath._types cimport (
    MAX_KEY_BYTES,
    OUTCOME_ABSENT,
    OUTCOME_BREAKER,
    OUTCOME_BUSY,
    OUTCOME_HIT,
    OUTCOME_MALFORMED,
    OUTCOME_NOT_READ,
    OUTCOME_PENDING,
    OUTCOME_REFUSED,
    OUTCOME_UNREACHABLE,
    span_t,
    watcher_t,
)
from fastpath.breaker cimport (
    breaker_admit,
    breaker_configure,
    breaker_refuses,
    breaker_release,
    breaker_settle,
)
from fastpath.metrics cimport add
from fastpath.record_cache cimport (
    MIN_CACHE_BYTES,
    cache_clear,
    cache_find,
    cache_init,
    cache_leave,
    cache_store,
)
from fastpath.redis_link cimport (
    LINK_READY,
    address_t,
    link_ask,
    link_attach,
    link_clear,
    link_detach,
    link_flush,
    link_init,
    link_t,
    link_wake_ns,
)
from fastpath.redis_protocol cimport (
    CAUSE_SOCKET,
    MAX_PREFIX_BYTES,
    REFUSAL_TOO_LARGE,
    REFUSAL_WRONG_TYPE,
    REPLY_LOST,
    REPLY_NIL,
    REPLY_VALUE,
    conversation_forget,
    format_handshake,
)
from fastpath.store cimport OnlineStore, read_t

import os
import secrets
import socket
import struct

from fastpath.errors import StoreError
from fastpath.redis_options import BreakerSpec, RedisTls, check_duration, resolve
from fastpath.redis_protocol import CAUSES as _CAUSES
from fastpath.redis_protocol import REFUSALS as _REFUSALS

cdef int64_t MICROSECOND_NS = 1_000
cdef int64_t MILLISECOND_NS = 1_000_000


# ---------------------------------------------------------------- slots and the hedge list


cdef waiting_t* _take_slot(redis_t* store) noexcept nogil:
    cdef waiting_t* slot = store.free_slots
    if slot != NULL:
        store.free_slots = slot.next
    elif store.n_slots < MAX_PENDING:
        slot = &store.slots[store.n_slots]
        store.n_slots += 1
    return slot


cdef void _give_slot(redis_t* store, waiting_t* slot) noexcept nogil:
    slot.next = store.free_slots
    store.free_slots = slot


cdef void _await_hedge(redis_t* store, waiting_t* slot) noexcept nogil:
    slot.to_hedge = 1
    slot.next = NULL
    slot.previous = store.newest
    if store.newest != NULL:
        store.newest.next = slot
    else:
        store.oldest = slot
    store.newest = slot


cdef void _leave_hedge(redis_t* store, waiting_t* slot) noexcept nogil:
    if not slot.to_hedge:
        return
    slot.to_hedge = 0
    if slot.previous != NULL:
        slot.previous.next = slot.next
    else:
        store.oldest = slot.next
    if slot.next != NULL:
        slot.next.previous = slot.previous
    else:
        store.newest = slot.previous


cdef void _release(redis_t* store, waiting_t* slot) noexcept nogil:
    # Nothing points to the slot any more: its replies are forgotten.
    cdef int32_t i
    for i in range(N_LINKS):
        if slot.sequences[i] >= 0:
            conversation_forget(&store.links[i].talk, slot.sequences[i])
    _leave_hedge(store, slot)
    _give_slot(store, slot)
    store.n_pending -= 1


# ---------------------------------------------------------------- replies


cdef void _on_reply(
    redis_t* store, int32_t leg, waiting_t* slot, int32_t reply, int32_t refusal,
    const uint8_t* data, size_t size, int64_t now_ns
) noexcept nogil:
    cdef read_t* read = slot.read
    cdef int32_t outcome
    cdef bint failed = False
    slot.sequences[leg] = -1
    if reply == REPLY_VALUE:
        outcome = OUTCOME_HIT
    elif reply == REPLY_NIL:
        outcome = OUTCOME_ABSENT
    elif slot.sequences[1 - leg] >= 0:
        return                   # no answer, and the other one is still to come
    elif reply == REPLY_LOST:
        outcome = OUTCOME_UNREACHABLE
        failed = True
    else:
        outcome = OUTCOME_MALFORMED if refusal == REFUSAL_TOO_LARGE else OUTCOME_REFUSED
        failed = refusal != REFUSAL_WRONG_TYPE
    if not failed and leg == REPLICA and slot.sequences[PRIMARY] >= 0:
        add(&store.n_hedge_wins, 1)
    breaker_settle(&store.breaker, slot.ticket, failed, now_ns)
    if outcome == OUTCOME_HIT or outcome == OUTCOME_ABSENT:
        cache_store(&store.cache, slot.key, slot.n_key, data, size, now_ns)
    _release(store, slot)
    # Last: it may ask again.
    read.done(read, outcome, data, size if outcome == OUTCOME_HIT else 0, now_ns)


cdef void _on_primary(
    void* context, void* token, int32_t reply, int32_t refusal, const uint8_t* data, size_t size,
    int64_t now_ns
) noexcept nogil:
    _on_reply(
        <redis_t*> context, PRIMARY, <waiting_t*> token, reply, refusal, data, size, now_ns
    )


cdef void _on_replica(
    void* context, void* token, int32_t reply, int32_t refusal, const uint8_t* data, size_t size,
    int64_t now_ns
) noexcept nogil:
    _on_reply(
        <redis_t*> context, REPLICA, <waiting_t*> token, reply, refusal, data, size, now_ns
    )


# ---------------------------------------------------------------- the table of functions


cdef int32_t _get(
    void* impl, const uint8_t* key, size_t n_key, read_t* read, int64_t now_ns, span_t* out
) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    cdef waiting_t* slot
    cdef int32_t leg = PRIMARY
    cdef int32_t outcome
    cdef int64_t ticket
    if n_key > MAX_KEY_BYTES:
        return OUTCOME_ABSENT
    outcome = cache_find(&store.cache, key, n_key, now_ns, out)
    if outcome != OUTCOME_NOT_READ:
        return outcome
    if store.links[PRIMARY].state != LINK_READY:
        if store.links[REPLICA] == NULL or store.links[REPLICA].state != LINK_READY:
            if breaker_refuses(&store.breaker, now_ns):
                return OUTCOME_BREAKER
            return OUTCOME_UNREACHABLE
        leg = REPLICA
    ticket = breaker_admit(&store.breaker, now_ns)
    if ticket == 0:
        return OUTCOME_BREAKER
    slot = _take_slot(store)
    if slot == NULL:
        breaker_release(&store.breaker, ticket)
        return OUTCOME_BUSY
    slot.sequences[1 - leg] = -1
    slot.sequences[leg] = link_ask(store.links[leg], key, n_key, slot)
    if slot.sequences[leg] < 0:
        breaker_release(&store.breaker, ticket)
        _give_slot(store, slot)
        return OUTCOME_BUSY
    slot.read = read
    slot.ticket = ticket
    slot.asked_ns = now_ns
    slot.to_hedge = 0
    slot.n_key = <int32_t> n_key
    memcpy(slot.key, key, n_key)
    read.own[0] = <int64_t> slot
    store.n_pending += 1
    if leg == REPLICA:
        add(&store.n_failovers, 1)
    elif store.hedge_after_ns > 0:
        _await_hedge(store, slot)
    return OUTCOME_PENDING


cdef void _abandon(
    void* impl, read_t* read, int32_t timed_out, int64_t now_ns
) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    cdef waiting_t* slot = <waiting_t*> read.own[0]
    if timed_out:
        breaker_settle(&store.breaker, slot.ticket, True, now_ns)
    else:
        breaker_release(&store.breaker, slot.ticket)
    _release(store, slot)


cdef void _hedge(redis_t* store, int64_t now_ns) noexcept nogil:
    cdef waiting_t* slot = store.oldest
    while slot != NULL and now_ns - slot.asked_ns >= store.hedge_after_ns:
        _leave_hedge(store, slot)
        slot.sequences[REPLICA] = link_ask(store.links[REPLICA], slot.key, slot.n_key, slot)
        if slot.sequences[REPLICA] >= 0:
            add(&store.n_hedged, 1)
        slot = store.oldest


cdef void _flush(void* impl, int64_t now_ns) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    store.now_ns = now_ns
    _hedge(store, now_ns)
    link_flush(store.links[PRIMARY], now_ns)
    if store.links[REPLICA] != NULL:
        link_flush(store.links[REPLICA], now_ns)


cdef void _leave(void* impl) noexcept nogil:
    cache_leave(&(<redis_t*> impl).cache)


cdef int64_t _wake_ns(void* impl) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    cdef int64_t wake_ns = link_wake_ns(store.links[PRIMARY])
    if store.links[REPLICA] != NULL:
        wake_ns = min(wake_ns, link_wake_ns(store.links[REPLICA]))
        if store.oldest != NULL:
            wake_ns = min(wake_ns, store.oldest.asked_ns + store.hedge_after_ns)
    return wake_ns


cdef void _attach(void* impl, const watcher_t* watcher, int64_t now_ns) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    cdef int32_t i
    for i in range(N_LINKS):
        if store.links[i] != NULL:
            link_attach(store.links[i], watcher, now_ns)


cdef void _detach(void* impl) noexcept nogil:
    cdef redis_t* store = <redis_t*> impl
    cdef int32_t i
    for i in range(N_LINKS):
        if store.links[i] != NULL:
            link_detach(store.links[i], store.now_ns)


# ---------------------------------------------------------------- for Python


cdef int _set_addresses(link_t* link, targets) except -1:
    # sockaddr_un, sockaddr_in and sockaddr_in6, as their manual pages lay them out.
    cdef address_t* address
    cdef bytes packed
    for family, host, port in targets:
        if family == socket.AF_UNIX:
            packed = struct.pack("=H", family) + host.encode() + b"\0"
        elif family == socket.AF_INET:
            packed = struct.pack("=H", family) + struct.pack(">H4s8x", port, socket.inet_aton(host))
        else:
            packed = struct.pack("=H", family) + struct.pack(
                ">HI16sI", port, 0, socket.inet_pton(family, host), 0
            )
        address = &link.addresses[link.n_addresses]
        address.family = family
        address.size = len(packed)
        memcpy(address.bytes, <const char*> packed, len(packed))
        link.n_addresses += 1
    if link.n_addresses == 0:
        raise StoreError("address: the host has no IPv4 or IPv6 address")
    return 0


cdef int _add_link(
    RedisStore owner, int leg, str address, tls, bytes prefix, int steps
) except -1:
    cdef link_t* link = <link_t*> calloc(1, sizeof(link_t))
    cdef TlsContext context
    if link == NULL:
        raise MemoryError
    owner.store.links[leg] = link
    endpoint = resolve(address)
    _set_addresses(link, endpoint.targets)
    if tls is not None:
        context = TlsContext(tls, endpoint.host)
        owner._tls.append(context)
        link.tls = context.context
        if context.server_name:
            link.tls_name = context.server_name
    link.talk.handshake = <const uint8_t*> <const char*> owner._handshake
    link.talk.n_handshake = len(owner._handshake)
    link.talk.steps = steps
    link.talk.on_reply = _on_primary if leg == PRIMARY else _on_replica
    link.talk.context = owner.store
    memcpy(link.talk.prefix, <const char*> prefix, len(prefix))
    link.talk.n_prefix = len(prefix)
    link_init(link)
    return 0


cdef class RedisStore(OnlineStore):
    """One loop thread's view of the online records in a Redis server.

    Parameters
    ----------
    address : str
        "host:port", "[IPv6 address]:port" or "unix:/path". A name is resolved now, once; all its
        addresses are tried in turn.
    replica : str
        Address of a replica that may be asked as well; empty: none.
    username, password : str
        For AUTH; an empty password: no AUTH. The same at both servers.
    database : int
        For SELECT, >= 0.
    key_prefix : str
        Put before every key; up to 128 bytes of UTF-8.
    tls : RedisTls or None
        None: cleartext.
    connect_timeout_ms : float
        For connecting, TLS and Redis handshake together, 1..600000.
    stall_us : float
        A connection that owes replies and sends nothing for so long is discarded; four read budgets
        are advised. 100..600e6.
    hedge_after_us : float
        A read that has waited so long is asked of the replica as well; 0: never.
    cache_bytes : int
        Memory for records that were read a moment ago, of this store alone; 0: none are kept.
    cache_ttl_ms : float
        How long they may be used; > 0 with cache_bytes.
    breaker : BreakerSpec
    seed : int or None
        Of the jitter; None: from the system.

    Raises
    ------
    StoreError
        A parameter out of its range, an address that cannot be resolved, a TLS file that cannot be
        used. A server that cannot be reached is no error: the store keeps trying.
    """

    def __cinit__(
        self, str address, *, str replica="", str username="", str password="", int database=0,
        str key_prefix="scoregate:", tls=None, connect_timeout_ms=1000, stall_us=20_000,
        hedge_after_us=0, cache_bytes=0, cache_ttl_ms=0, breaker=BreakerSpec(), seed=None
    ):
        check_duration("connect_timeout_ms", connect_timeout_ms, 1, 600_000)
        check_duration("stall_us", stall_us, 100, 600_000_000)
        check_duration("hedge_after_us", hedge_after_us, 0, 600_000_000)
        if hedge_after_us and not replica:
            raise StoreError("hedge_after_us: needs a replica to ask")
        if cache_bytes:
            check_duration("cache_ttl_ms (with cache_bytes)", cache_ttl_ms, 0.001, 86_400_000)
            if not MIN_CACHE_BYTES <= cache_bytes <= 1 << 34:
                raise StoreError(
                    f"cache_bytes: {cache_bytes} is neither 0 nor within "
                    f"{MIN_CACHE_BYTES}..{1 << 34}"
                )
        if database < 0:
            raise StoreError(f"database: {database} is below 0")
        if username and not password:
            raise StoreError("username: needs a password beside it")
        if tls is not None and not isinstance(tls, RedisTls):
            raise StoreError(f"tls: {tls!r} is no RedisTls")
        prefix = key_prefix.encode()
        if len(prefix) > MAX_PREFIX_BYTES:
            raise StoreError(f"key_prefix: {len(prefix)} bytes are over {MAX_PREFIX_BYTES}")
        seed = secrets.randbits(64) if seed is None else seed % 2**64
        self.address = address
        self.replica = replica
        self.store = <redis_t*> calloc(1, sizeof(redis_t))
        if self.store == NULL:
            raise MemoryError
        breaker_configure(&self.store.breaker, breaker, seed)
        self.store.hedge_after_ns = int(hedge_after_us * MICROSECOND_NS)
        if cache_bytes and cache_init(
            &self.store.cache, cache_bytes, int(cache_ttl_ms * MILLISECOND_NS), seed
        ) != 0:
            raise MemoryError
        self._handshake, steps = format_handshake(username, password, database)
        self._tls = []
        for i, name in enumerate((address, replica)):
            if name:
                _add_link(self, i, name, tls, prefix, steps)
                self.store.links[i].connect_timeout_ns = int(connect_timeout_ms * MILLISECOND_NS)
                self.store.links[i].stall_ns = int(stall_us * MICROSECOND_NS)
                self.store.links[i].seed = (seed + 1 + i) % 2**64
        self.table.impl = self.store
        self.table.may_wait = 1
        self.table.get = _get
        self.table.abandon = _abandon
        self.table.flush = _flush
        self.table.leave = _leave
        self.table.wake_ns = _wake_ns
        self.table.attach = _attach
        self.table.detach = _detach

    def __dealloc__(self):
        cdef int i
        if self.store == NULL:
            return
        for i in range(N_LINKS):
            if self.store.links[i] != NULL:
                link_clear(self.store.links[i])
                free(self.store.links[i])
        cache_clear(&self.store.cache)
        free(self.store)

    def stats(self):
        """Return the store's counters, read while its thread runs.

        Returns
        -------
        dict of str to int
            `connected` 1 while the primary can be asked, `replica_connected`; `pending` reads that
            wait; `breaker_state` 0 closed, 1 half-open, 2 open; `breaker_opened` how often it
            opened. Over both connections: `connects` that became ready, `connect_failures` and
            `connect_failures_<cause>`, `disconnects_<cause>` of ready connections, `replies`,
            `late_replies` to reads that nobody waited for any more, `errors_<cause>` that the
            server answered reads with. `hedged` reads asked of the replica as well, `hedge_wins`
            that it answered first, `failovers` reads asked of the replica alone.
            `cache_hits`, `cache_misses`, `cache_evictions`, `cache_bytes` in use. Causes:
            redis_protocol.CAUSES and REFUSALS.
        """
        cdef redis_t* store = self.store
        cdef link_t* link
        cdef int i, leg
        totals = {
            "connected": 0,
            "replica_connected": 0,
            "pending": store.n_pending,
            "connects": 0,
            "connect_failures": 0,
            **{f"connect_failures_{cause}": 0 for cause in _CAUSES},
            **{f"disconnects_{cause}": 0 for cause in _CAUSES},
            "replies": 0,
            "late_replies": 0,
            **{f"errors_{refusal}": 0 for refusal in _REFUSALS},
            "breaker_state": store.breaker.state,
            "breaker_opened": store.breaker.n_opened,
            "hedged": store.n_hedged,
            "hedge_wins": store.n_hedge_wins,
            "failovers": store.n_failovers,
            "cache_hits": store.cache.n_hits,
            "cache_misses": store.cache.n_misses,
            "cache_evictions": store.cache.n_evictions,
            "cache_bytes": store.cache.n_used,
        }
        for leg in range(N_LINKS):
            link = store.links[leg]
            if link == NULL:
                continue
            totals["connected" if leg == PRIMARY else "replica_connected"] = int(
                link.state == LINK_READY
            )
            totals["connects"] += link.n_connects
            totals["replies"] += link.talk.n_replies
            totals["late_replies"] += link.talk.n_late
            for i, cause in enumerate(_CAUSES):
                totals["connect_failures"] += link.connect_failures[i]
                totals[f"connect_failures_{cause}"] += link.connect_failures[i]
                totals[f"disconnects_{cause}"] += link.disconnects[i]
            for i, refusal in enumerate(_REFUSALS):
                totals[f"errors_{refusal}"] += link.talk.refusals[i]
        return totals

    @property
    def last_error(self):
        """Why the primary's connection was last lost or not made; empty: it never was.

        For people: read while the thread runs, it may be of two failures at once.
        """
        cdef link_t* link = self.store.links[PRIMARY]
        if link.last_cause < 0:
            return ""
        reason = (<const char*> link.last_reason).decode(errors="replace")
        if link.last_cause == CAUSE_SOCKET:
            reason = os.strerror(link.last_errno) if link.last_errno else "closed by the server"
        cause = _CAUSES[link.last_cause]
        return f"{self.address}: {cause}: {reason}" if reason else f"{self.address}: {cause}"
