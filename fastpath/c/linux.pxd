"""Linux and POSIX calls that Cython's own declarations lack: sockets, epoll, eventfd, threads."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport timespec

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    enum:
        AF_UNIX
        SOL_SOCKET
        SO_KEEPALIVE
        MSG_NOSIGNAL
        MSG_DONTWAIT
        SHUT_WR
        SOCK_NONBLOCK
        SOCK_CLOEXEC
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    int shutdown(int fd, int how)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
    union epoll_data_t:
        void* ptr
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int n_events, int timeout_ms)

# By its number (the same everywhere): a C library or headers may be older than the kernel.
cdef extern from *:
    """
    #include <sys/syscall.h>
    #ifndef SYS_epoll_pwait2
    #define SYS_epoll_pwait2 441
    #endif
    """
    const long SYS_epoll_pwait2

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int initial, int flags)
    int eventfd_read(int fd, uint64_t* value)
    int eventfd_write(int fd, uint64_t value)

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* out)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    pthread_t pthread_self()
    int pthread_setname_np(pthread_t thread, const char* name)
    int pthread_mutex_init(pthread_mutex_t*, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int clock)
    int pthread_condattr_destroy(pthread_condattr_t*)
    int pthread_cond_init(pthread_cond_t*, const pthread_condattr_t*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK
    int sigfillset(sigset_t*)
    int pthread_sigmask(int how, const sigset_t* new, sigset_t* old)

# The compiler's atomics. All users pass an order: ATOMIC_RELAXED for counters.
cdef extern from * nogil:
    enum:
        ATOMIC_RELAXED "__ATOMIC_RELAXED"
        ATOMIC_ACQUIRE "__ATOMIC_ACQUIRE"
        ATOMIC_RELEASE "__ATOMIC_RELEASE"
        ATOMIC_ACQ_REL "__ATOMIC_ACQ_REL"
    int64_t atomic_load "__atomic_load_n"(const int64_t* value, int order)
    void atomic_store "__atomic_store_n"(int64_t* value, int64_t new, int order)
    int64_t atomic_add "__atomic_add_fetch"(int64_t* value, int64_t step, int order)
    int64_t atomic_exchange "__atomic_exchange_n"(int64_t* value, int64_t new, int order)
