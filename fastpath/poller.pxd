from libc.stdint cimport int32_t, int64_t, uint32_t

from fastpath.c.linux cimport epoll_event

cdef enum:
    MAX_EVENTS = 256


# One epoll and the events of its last wait. One thread owns it.
ctypedef struct poller_t:
    int epoll_fd
    int32_t is_coarse            # the kernel waits in whole milliseconds only
    int32_t n_events
    epoll_event[MAX_EVENTS] events  # data.ptr NULL: taken back after the wait


# Zeroed memory on entry. Returns 0, or -1 with errno.
cdef int32_t poller_init(poller_t* poller) noexcept nogil
cdef void poller_clear(poller_t* poller) noexcept nogil
# epoll_ctl. After EPOLL_CTL_DEL no event with this pointer is left in `events`. Returns 0 or -1.
cdef int32_t poller_watch(
    poller_t* poller, int fd, void* pointer, uint32_t events, int operation
) noexcept nogil
# Fills `events`; returns how many, 0 where the time passed or a signal came. Zero or less does
# not block.
cdef int32_t poller_wait(poller_t* poller, int64_t timeout_ns) noexcept nogil
