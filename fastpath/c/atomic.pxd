"""GCC's and Clang's `__atomic` builtins: declarations only.

Counters have one writer (their loop) and any number of readers: relaxed loads and stores make
them whole without a locked instruction. Pointers that hand over ownership use SEQ_CST.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from * nogil:
    const int __ATOMIC_RELAXED
    const int __ATOMIC_ACQUIRE
    const int __ATOMIC_RELEASE
    const int __ATOMIC_SEQ_CST
    uint64_t load_u64 "__atomic_load_n"(const uint64_t* p, int order)
    void store_u64 "__atomic_store_n"(uint64_t* p, uint64_t value, int order)
    int32_t load_i32 "__atomic_load_n"(const int32_t* p, int order)
    void store_i32 "__atomic_store_n"(int32_t* p, int32_t value, int order)
    void* load_pointer "__atomic_load_n"(void* const* p, int order)
    void store_pointer "__atomic_store_n"(void** p, void* value, int order)
    void* exchange_pointer "__atomic_exchange_n"(void** p, void* value, int order)
