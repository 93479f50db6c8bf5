"""An epoll and its waits, to the nanosecond where the kernel can.

Rules: one thread owns a poller. Events carry a pointer that the owner gave; what a pointer means
is the owner's.

How it works: epoll_pwait2 (Linux 5.11) takes a timespec. An older kernel says ENOSYS, a sandbox
that does not know the call says EPERM: from then on this poller waits by epoll_wait, in
milliseconds rounded up, so that a timer is late and never early. The call is made by its number,
which is the same on every architecture: C libraries before 2.35 have no name for it.

A descriptor that is taken back takes its events with it: whoever handles one event may free what
a later one of the same wait points to.
"""

from libc.errno cimport ENOSYS, EPERM, errno
from libc.stdint cimport int32_t, int64_t, uint32_t
from posix.time cimport timespec
from posix.unistd cimport close

from fastpath.c.linux cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_DEL,
    SYS_epoll_pwait2,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    syscall,
)

cdef int64_t MILLISECOND_NS = 1_000_000
cdef int64_t SECOND_NS = 1_000_000_000


cdef int32_t poller_init(poller_t* poller) noexcept nogil:
    poller.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    return -1 if poller.epoll_fd < 0 else 0


cdef void poller_clear(poller_t* poller) noexcept nogil:
    if poller.epoll_fd >= 0:
        close(poller.epoll_fd)
    poller.epoll_fd = -1


cdef int32_t poller_watch(
    poller_t* poller, int fd, void* pointer, uint32_t events, int operation
) noexcept nogil:
    cdef epoll_event event
    cdef int32_t i
    if operation == EPOLL_CTL_DEL:
        for i in range(poller.n_events):
            if poller.events[i].data.ptr == pointer:
                poller.events[i].data.ptr = NULL
    event.events = events
    event.data.ptr = pointer
    return epoll_ctl(poller.epoll_fd, operation, fd, &event)


cdef int32_t poller_wait(poller_t* poller, int64_t timeout_ns) noexcept nogil:
    cdef timespec timeout
    cdef long n = -1
    if timeout_ns <= 0:
        n = epoll_wait(poller.epoll_fd, poller.events, MAX_EVENTS, 0)
    else:
        if not poller.is_coarse:
            timeout.tv_sec = timeout_ns // SECOND_NS
            timeout.tv_nsec = timeout_ns % SECOND_NS
            n = syscall(
                SYS_epoll_pwait2, poller.epoll_fd, poller.events, <int> MAX_EVENTS, &timeout,
                NULL, <size_t> 0,
            )
            poller.is_coarse = n < 0 and (errno == ENOSYS or errno == EPERM)
        if poller.is_coarse:
            n = epoll_wait(
                poller.epoll_fd, poller.events, MAX_EVENTS,
                <int> ((timeout_ns + MILLISECOND_NS - 1) // MILLISECOND_NS),
            )
    poller.n_events = <int32_t> max(n, 0)
    return poller.n_events
