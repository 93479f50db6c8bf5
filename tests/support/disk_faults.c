/* Preloaded into a process: ends it, or fails, at the n-th call that changes a file.
 *
 * Calls that count: write, pwrite, ftruncate, fsync, fdatasync on regular files; rename, unlink.
 * A process that is ended in a write has written half of it. disk_faults_arm(mode, at, n):
 * mode 0 never, 1 SIGKILL at call `at`, 2 EIO from every sync from call `at` on, `n` times. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int mode;
static long at, n_failures, n_calls;

void disk_faults_arm(int new_mode, long new_at, long n) {
    mode = new_mode;
    at = new_at;
    n_failures = n;
    n_calls = 0;
}

long disk_faults_calls(void) { return n_calls; }

static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static int is_the_call(void) { return ++n_calls == at && mode == 1; }

static void end(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int sync_fails(void) {
    if (mode != 2 || n_calls < at || n_failures <= 0) return 0;
    n_failures--;
    errno = EIO;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

#define PWRITE(function, name, offset_type) \
    ssize_t function(int fd, const void* data, size_t size, offset_type offset) { \
        REAL(ssize_t, name, int, const void*, size_t, offset_type); \
        if (is_file(fd) && is_the_call()) { \
            real(fd, data, size / 2, offset); \
            end(); \
        } \
        return real(fd, data, size, offset); \
    }

PWRITE(pwrite, "pwrite", off_t)
PWRITE(pwrite64, "pwrite64", off64_t)

ssize_t write(int fd, const void* data, size_t size) {
    REAL(ssize_t, "write", int, const void*, size_t);
    if (is_file(fd) && is_the_call()) {
        real(fd, data, size / 2);
        end();
    }
    return real(fd, data, size);
}

#define SYNC(function, name) \
    int function(int fd) { \
        REAL(int, name, int); \
        if (is_file(fd)) { \
            if (is_the_call()) end(); \
            if (sync_fails()) return -1; \
        } \
        return real(fd); \
    }

SYNC(fsync, "fsync")
SYNC(fdatasync, "fdatasync")

#define TRUNCATE(function, name, offset_type) \
    int function(int fd, offset_type size) { \
        REAL(int, name, int, offset_type); \
        if (is_file(fd) && is_the_call()) end(); \
        return real(fd, size); \
    }

TRUNCATE(ftruncate, "ftruncate", off_t)
TRUNCATE(ftruncate64, "ftruncate64", off64_t)

int rename(const char* from, const char* to) {
    REAL(int, "rename", const char*, const char*);
    if (is_the_call()) end();
    return real(from, to);
}

int unlink(const char* path) {
    REAL(int, "unlink", const char*);
    if (is_the_call()) end();
    return real(path);
}
