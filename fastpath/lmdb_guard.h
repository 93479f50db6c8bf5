/* Reading a memory map whose file may be damaged, without dying of it.
 *
 * Two things end a process that reads a damaged LMDB file: SIGBUS, when a page lies behind the end of
 * the file (it was cut) or cannot be read (the disk fails), and abort(), when an assertion inside
 * liblmdb fails. Here SIGBUS inside a guarded map puts a page of zeros in the place of the lost one
 * and raises the map's flag: LMDB sees a page that is not one of its own (MDB_CORRUPTED), or the
 * record reads as zeros, and whoever sees the flag stops using the map. A failed assertion jumps
 * back to `guarded_get`, which answers MDB_CORRUPTED: liblmdb holds no lock and no memory there.
 *
 * C because setjmp must not stand in generated code. Included by one module, which owns the state.
 */
#ifndef SCOREGATE_LMDB_GUARD_H
#define SCOREGATE_LMDB_GUARD_H

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_SLOTS 512

typedef struct {
    uintptr_t start; /* 0: the slot is free; written last, cleared first */
    uintptr_t end;
    int32_t *torn; /* set to 1 when a page of the map is lost */
} guard_slot_t;

static guard_slot_t guard_slots[GUARD_SLOTS];
static struct sigaction guard_previous;
static int guard_installed;
static uintptr_t guard_page_bytes;
/* initial-exec: a load off the thread pointer instead of a call; a few bytes fit the static block. */
static __thread jmp_buf *guard_jump __attribute__((tls_model("initial-exec")));
static __thread int guard_unblocked __attribute__((tls_model("initial-exec")));

static void guard_on_bus(int number, siginfo_t *info, void *context) {
    uintptr_t address = (uintptr_t) info->si_addr;
    int saved = errno;
    for (int i = 0; i < GUARD_SLOTS; i++) {
        uintptr_t start = __atomic_load_n(&guard_slots[i].start, __ATOMIC_ACQUIRE);
        if (start == 0 || address < start || address >= guard_slots[i].end) continue;
        void *page = (void *) (address & ~(guard_page_bytes - 1));
        if (mmap(page, guard_page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
            == MAP_FAILED) break;
        __atomic_store_n(guard_slots[i].torn, 1, __ATOMIC_SEQ_CST);
        errno = saved;
        return;
    }
    errno = saved;
    /* Not ours: whoever handled SIGBUS before does, or the instruction faults again and ends us. */
    if (guard_previous.sa_flags & SA_SIGINFO) {
        guard_previous.sa_sigaction(number, info, context);
    } else if (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN) {
        guard_previous.sa_handler(number);
    } else {
        signal(SIGBUS, SIG_DFL);
    }
}

/* Called with the GIL: not thread-safe by itself. Returns a slot, or -1: none is free. */
static int guard_add(const void *start, size_t n_bytes, int32_t *torn) {
    if (!guard_installed) {
        struct sigaction action = {0};
        guard_page_bytes = (uintptr_t) sysconf(_SC_PAGESIZE);
        action.sa_sigaction = guard_on_bus;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGBUS, &action, &guard_previous) != 0) return -1;
        guard_installed = 1;
    }
    for (int i = 0; i < GUARD_SLOTS; i++) {
        if (guard_slots[i].start != 0) continue;
        guard_slots[i].end = (uintptr_t) start + n_bytes;
        guard_slots[i].torn = torn;
        __atomic_store_n(&guard_slots[i].start, (uintptr_t) start, __ATOMIC_RELEASE);
        return i;
    }
    return -1;
}

static void guard_remove(int slot) {
    if (slot >= 0) __atomic_store_n(&guard_slots[slot].start, 0, __ATOMIC_SEQ_CST);
}

static void guard_on_assert(MDB_env *env, const char *text) {
    (void) env;
    (void) text;
    /* Without a guarded_get on the stack liblmdb prints the text and aborts, as it always does. */
    if (guard_jump != NULL) _longjmp(*guard_jump, 1);
}

/* Called before a thread's first read: loop threads block every signal, and a fault whose signal is
 * blocked ends the process whatever handler there is. */
static void guard_unblock(void) {
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
    guard_unblocked = 1;
}

static int guarded_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data) {
    jmp_buf jump;
    int status;
    if (!guard_unblocked) guard_unblock();
    if (_setjmp(jump) != 0) {
        guard_jump = NULL;
        return MDB_CORRUPTED;
    }
    guard_jump = &jump;
    status = mdb_get(txn, dbi, key, data);
    guard_jump = NULL;
    return status;
}

static int guard_asserts(MDB_env *env) {
    return mdb_env_set_assert(env, guard_on_assert);
}

#endif
