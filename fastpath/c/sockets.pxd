"""Linux calls of a client: connecting sockets, timers, the thread's own CPU clock."""

from libc.stdint cimport uint64_t
from posix.time cimport timespec

from fastpath.c.linux cimport sockaddr, socklen_t

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        SOCK_STREAM
        SO_ERROR
    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr* address, socklen_t size)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET

cdef extern from "<time.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    enum:
        CLOCK_REALTIME
        CLOCK_THREAD_CPUTIME_ID

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* new, itimerspec* old)
