"""liblmdb 0.9.24 or newer (0.9.x): declarations only."""

cdef extern from "lmdb.h" nogil:
    ctypedef struct MDB_env:
        pass
    ctypedef struct MDB_txn:
        pass
    ctypedef unsigned int MDB_dbi

    # Of data that was found: memory of the map, valid until the transaction is reset or ends.
    ctypedef struct MDB_val:
        size_t mv_size
        void* mv_data

    ctypedef struct MDB_stat:
        unsigned int ms_psize
        unsigned int ms_depth
        size_t ms_branch_pages
        size_t ms_leaf_pages
        size_t ms_overflow_pages
        size_t ms_entries

    ctypedef struct MDB_envinfo:
        void* me_mapaddr
        size_t me_mapsize
        size_t me_last_pgno
        size_t me_last_txnid
        unsigned int me_maxreaders
        unsigned int me_numreaders

    # Environment flags.
    const unsigned int MDB_RDONLY
    const unsigned int MDB_NOTLS
    const unsigned int MDB_NOLOCK
    # Errors below zero are LMDB's own, above zero errno's.
    const int MDB_SUCCESS
    const int MDB_NOTFOUND
    const int MDB_PAGE_NOTFOUND
    const int MDB_CORRUPTED
    const int MDB_PANIC
    const int MDB_VERSION_MISMATCH
    const int MDB_INVALID
    const int MDB_MAP_RESIZED
    const int MDB_READERS_FULL
    const int MDB_BAD_RSLOT
    const int MDB_BAD_TXN
    const int MDB_BAD_VALSIZE

    char* mdb_version(int* major, int* minor, int* patch)
    char* mdb_strerror(int error)
    int mdb_env_create(MDB_env** env)
    int mdb_env_open(MDB_env* env, const char* path, unsigned int flags, unsigned int mode)
    void mdb_env_close(MDB_env* env)
    int mdb_env_set_mapsize(MDB_env* env, size_t size)
    int mdb_env_info(MDB_env* env, MDB_envinfo* info)
    int mdb_reader_check(MDB_env* env, int* n_dead)
    int mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned int flags, MDB_txn** txn)
    int mdb_txn_renew(MDB_txn* txn)
    void mdb_txn_reset(MDB_txn* txn)
    void mdb_txn_abort(MDB_txn* txn)
    int mdb_dbi_open(MDB_txn* txn, const char* name, unsigned int flags, MDB_dbi* dbi)
    int mdb_dbi_flags(MDB_txn* txn, MDB_dbi dbi, unsigned int* flags)
    int mdb_stat(MDB_txn* txn, MDB_dbi dbi, MDB_stat* stat)
    int mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
