"""hiredis: the reader of replies and the formatter of commands. Declarations only.

`createArray` takes an int in hiredis 0.14 and a size_t in 1.x: declared as an address, for
callbacks that do not look at the number.
"""

cdef extern from "<hiredis/hiredis.h>" nogil:
    enum:
        REDIS_OK
        REDIS_REPLY_STRING
        REDIS_REPLY_STATUS
        REDIS_REPLY_ERROR

    struct redisReadTask:
        int type
        redisReadTask* parent
        void* privdata

    struct redisReplyObjectFunctions:
        void* (*createString)(const redisReadTask* task, char* text, size_t size) noexcept
        void* createArray
        void* (*createInteger)(const redisReadTask* task, long long value) noexcept
        void* (*createNil)(const redisReadTask* task) noexcept
        void (*freeObject)(void* reply) noexcept

    struct redisReader:
        int err
        size_t pos
        size_t len
        size_t maxbuf
        void* privdata

    redisReader* redisReaderCreateWithFunctions(redisReplyObjectFunctions* functions)
    void redisReaderFree(redisReader* reader)
    int redisReaderFeed(redisReader* reader, const char* data, size_t size)
    int redisReaderGetReply(redisReader* reader, void** reply)
    int redisFormatCommandArgv(
        char** target, int n_arguments, const char** arguments, const size_t* sizes
    )
    void redisFreeCommand(char* command)
