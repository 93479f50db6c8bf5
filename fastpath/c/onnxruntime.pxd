"""The part of ONNX Runtime's C API that `onnx.pyx` calls, for API version 20 and later.

The wheel ships the library but no header. `OrtApi` is an append-only table of function pointers; a
function's place in it never changes. The places below are those of onnxruntime_c_api.h, counted
from 0, and asserted when this is compiled. Names and argument lists are the header's.
"""

from libc.stdint cimport int64_t, uint32_t

cdef extern from * nogil:
    """
    #include <stddef.h>
    #include <stdint.h>

    typedef struct OrtStatus OrtStatus;
    typedef struct OrtEnv OrtEnv;
    typedef struct OrtSession OrtSession;
    typedef struct OrtSessionOptions OrtSessionOptions;
    typedef struct OrtRunOptions OrtRunOptions;
    typedef struct OrtIoBinding OrtIoBinding;
    typedef struct OrtValue OrtValue;
    typedef struct OrtTypeInfo OrtTypeInfo;
    typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
    typedef struct OrtAllocator OrtAllocator;
    typedef struct OrtMemoryInfo OrtMemoryInfo;

    enum {
        ORT_API_VERSION_USED = 20,
        ORT_LOGGING_LEVEL_ERROR = 3,
        ORT_SEQUENTIAL = 0,
        ORT_ENABLE_ALL = 99,
        ORT_TENSOR_FLOAT = 1,       /* ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT */
        ORT_DEVICE_ALLOCATOR = 0,
        ORT_MEM_TYPE_DEFAULT = 0
    };

    typedef struct {
        void *slot_0[1];
        int (*GetErrorCode)(const OrtStatus *status);
        const char *(*GetErrorMessage)(const OrtStatus *status);
        OrtStatus *(*CreateEnv)(int level, const char *logid, OrtEnv **out);
        void *slot_4[2];
        OrtStatus *(*DisableTelemetryEvents)(const OrtEnv *env);
        void *slot_7[1];
        OrtStatus *(*CreateSessionFromArray)(const OrtEnv *env, const void *data, size_t size,
                                             const OrtSessionOptions *options, OrtSession **out);
        OrtStatus *(*Run)(OrtSession *session, const OrtRunOptions *options,
                          const char *const *input_names, const OrtValue *const *inputs,
                          size_t n_inputs, const char *const *output_names, size_t n_outputs,
                          OrtValue **outputs);
        OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **out);
        void *slot_11[2];
        OrtStatus *(*SetSessionExecutionMode)(OrtSessionOptions *options, int mode);
        void *slot_14[3];
        OrtStatus *(*DisableMemPattern)(OrtSessionOptions *options);
        void *slot_18[1];
        OrtStatus *(*DisableCpuMemArena)(OrtSessionOptions *options);
        void *slot_20[2];
        OrtStatus *(*SetSessionLogSeverityLevel)(OrtSessionOptions *options, int level);
        OrtStatus *(*SetSessionGraphOptimizationLevel)(OrtSessionOptions *options, int level);
        OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int n);
        OrtStatus *(*SetInterOpNumThreads)(OrtSessionOptions *options, int n);
        void *slot_26[4];
        OrtStatus *(*SessionGetInputCount)(const OrtSession *session, size_t *out);
        OrtStatus *(*SessionGetOutputCount)(const OrtSession *session, size_t *out);
        void *slot_32[1];
        OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *session, size_t index,
                                              OrtTypeInfo **out);
        OrtStatus *(*SessionGetOutputTypeInfo)(const OrtSession *session, size_t index,
                                               OrtTypeInfo **out);
        void *slot_35[1];
        OrtStatus *(*SessionGetInputName)(const OrtSession *session, size_t index,
                                          OrtAllocator *allocator, char **out);
        OrtStatus *(*SessionGetOutputName)(const OrtSession *session, size_t index,
                                           OrtAllocator *allocator, char **out);
        void *slot_38[11];
        OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *info, void *data,
                                                     size_t n_bytes, const int64_t *shape,
                                                     size_t n_dimensions, int type,
                                                     OrtValue **out);
        void *slot_50[5];
        OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *info,
                                               const OrtTensorTypeAndShapeInfo **out);
        void *slot_56[4];
        OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, int *out);
        OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
        OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *out,
                                    size_t n);
        void *slot_63[6];
        OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo **out);
        void *slot_70[6];
        OrtStatus *(*AllocatorFree)(OrtAllocator *allocator, void *data);
        void *slot_77[1];
        OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **out);
        void *slot_79[13];
        void (*ReleaseEnv)(OrtEnv *env);
        void (*ReleaseStatus)(OrtStatus *status);
        void (*ReleaseMemoryInfo)(OrtMemoryInfo *info);
        void (*ReleaseSession)(OrtSession *session);
        void (*ReleaseValue)(OrtValue *value);
        void (*ReleaseRunOptions)(OrtRunOptions *options);
        void (*ReleaseTypeInfo)(OrtTypeInfo *info);
        void *slot_99[1];
        void (*ReleaseSessionOptions)(OrtSessionOptions *options);
        void *slot_101[32];
        OrtStatus *(*RunWithBinding)(OrtSession *session, const OrtRunOptions *options,
                                     const OrtIoBinding *binding);
        OrtStatus *(*CreateIoBinding)(OrtSession *session, OrtIoBinding **out);
        void (*ReleaseIoBinding)(OrtIoBinding *binding);
        OrtStatus *(*BindInput)(OrtIoBinding *binding, const char *name, const OrtValue *value);
        OrtStatus *(*BindOutput)(OrtIoBinding *binding, const char *name, const OrtValue *value);
    } OrtApi;

    typedef struct {
        const OrtApi *(*GetApi)(uint32_t version);
        const char *(*GetVersionString)(void);
    } OrtApiBase;

    typedef const OrtApiBase *(*OrtGetApiBaseFn)(void);

    #define ORT_SLOT(name, n) \\
        _Static_assert(offsetof(OrtApi, name) == (n) * sizeof(void *), #name)
    ORT_SLOT(GetErrorCode, 1);
    ORT_SLOT(GetErrorMessage, 2);
    ORT_SLOT(CreateEnv, 3);
    ORT_SLOT(DisableTelemetryEvents, 6);
    ORT_SLOT(CreateSessionFromArray, 8);
    ORT_SLOT(Run, 9);
    ORT_SLOT(CreateSessionOptions, 10);
    ORT_SLOT(SetSessionExecutionMode, 13);
    ORT_SLOT(DisableMemPattern, 17);
    ORT_SLOT(DisableCpuMemArena, 19);
    ORT_SLOT(SetSessionLogSeverityLevel, 22);
    ORT_SLOT(SetSessionGraphOptimizationLevel, 23);
    ORT_SLOT(SetIntraOpNumThreads, 24);
    ORT_SLOT(SetInterOpNumThreads, 25);
    ORT_SLOT(SessionGetInputCount, 30);
    ORT_SLOT(SessionGetOutputCount, 31);
    ORT_SLOT(SessionGetInputTypeInfo, 33);
    ORT_SLOT(SessionGetOutputTypeInfo, 34);
    ORT_SLOT(SessionGetInputName, 36);
    ORT_SLOT(SessionGetOutputName, 37);
    ORT_SLOT(CreateTensorWithDataAsOrtValue, 49);
    ORT_SLOT(CastTypeInfoToTensorInfo, 55);
    ORT_SLOT(GetTensorElementType, 60);
    ORT_SLOT(GetDimensionsCount, 61);
    ORT_SLOT(GetDimensions, 62);
    ORT_SLOT(CreateCpuMemoryInfo, 69);
    ORT_SLOT(AllocatorFree, 76);
    ORT_SLOT(GetAllocatorWithDefaultOptions, 78);
    ORT_SLOT(ReleaseEnv, 92);
    ORT_SLOT(ReleaseStatus, 93);
    ORT_SLOT(ReleaseMemoryInfo, 94);
    ORT_SLOT(ReleaseSession, 95);
    ORT_SLOT(ReleaseValue, 96);
    ORT_SLOT(ReleaseRunOptions, 97);
    ORT_SLOT(ReleaseTypeInfo, 98);
    ORT_SLOT(ReleaseSessionOptions, 100);
    ORT_SLOT(RunWithBinding, 133);
    ORT_SLOT(CreateIoBinding, 134);
    ORT_SLOT(ReleaseIoBinding, 135);
    ORT_SLOT(BindInput, 136);
    ORT_SLOT(BindOutput, 137);
    #undef ORT_SLOT
    """
    enum:
        ORT_API_VERSION_USED
        ORT_LOGGING_LEVEL_ERROR
        ORT_SEQUENTIAL
        ORT_ENABLE_ALL
        ORT_TENSOR_FLOAT
        ORT_DEVICE_ALLOCATOR
        ORT_MEM_TYPE_DEFAULT

    ctypedef struct OrtStatus:
        pass
    ctypedef struct OrtEnv:
        pass
    ctypedef struct OrtSession:
        pass
    ctypedef struct OrtSessionOptions:
        pass
    ctypedef struct OrtRunOptions:
        pass
    ctypedef struct OrtIoBinding:
        pass
    ctypedef struct OrtValue:
        pass
    ctypedef struct OrtTypeInfo:
        pass
    ctypedef struct OrtTensorTypeAndShapeInfo:
        pass
    ctypedef struct OrtAllocator:
        pass
    ctypedef struct OrtMemoryInfo:
        pass

    ctypedef struct OrtApi:
        int GetErrorCode(const OrtStatus* status) noexcept nogil
        const char* GetErrorMessage(const OrtStatus* status) noexcept nogil
        OrtStatus* CreateEnv(int level, const char* logid, OrtEnv** out) noexcept nogil
        OrtStatus* DisableTelemetryEvents(const OrtEnv* env) noexcept nogil
        OrtStatus* CreateSessionFromArray(
            const OrtEnv* env, const void* data, size_t size, const OrtSessionOptions* options,
            OrtSession** out
        ) noexcept nogil
        OrtStatus* CreateSessionOptions(OrtSessionOptions** out) noexcept nogil
        OrtStatus* SetSessionExecutionMode(OrtSessionOptions* options, int mode) noexcept nogil
        OrtStatus* DisableMemPattern(OrtSessionOptions* options) noexcept nogil
        OrtStatus* DisableCpuMemArena(OrtSessionOptions* options) noexcept nogil
        OrtStatus* SetSessionLogSeverityLevel(OrtSessionOptions* options, int level) noexcept nogil
        OrtStatus* SetSessionGraphOptimizationLevel(
            OrtSessionOptions* options, int level
        ) noexcept nogil
        OrtStatus* SetIntraOpNumThreads(OrtSessionOptions* options, int n) noexcept nogil
        OrtStatus* SetInterOpNumThreads(OrtSessionOptions* options, int n) noexcept nogil
        OrtStatus* SessionGetInputCount(const OrtSession* session, size_t* out) noexcept nogil
        OrtStatus* SessionGetOutputCount(const OrtSession* session, size_t* out) noexcept nogil
        OrtStatus* SessionGetInputTypeInfo(
            const OrtSession* session, size_t index, OrtTypeInfo** out
        ) noexcept nogil
        OrtStatus* SessionGetOutputTypeInfo(
            const OrtSession* session, size_t index, OrtTypeInfo** out
        ) noexcept nogil
        OrtStatus* SessionGetInputName(
            const OrtSession* session, size_t index, OrtAllocator* allocator, char** out
        ) noexcept nogil
        OrtStatus* SessionGetOutputName(
            const OrtSession* session, size_t index, OrtAllocator* allocator, char** out
        ) noexcept nogil
        OrtStatus* CreateTensorWithDataAsOrtValue(
            const OrtMemoryInfo* info, void* data, size_t n_bytes, const int64_t* shape,
            size_t n_dimensions, int type, OrtValue** out
        ) noexcept nogil
        OrtStatus* CastTypeInfoToTensorInfo(
            const OrtTypeInfo* info, const OrtTensorTypeAndShapeInfo** out
        ) noexcept nogil
        OrtStatus* GetTensorElementType(
            const OrtTensorTypeAndShapeInfo* info, int* out
        ) noexcept nogil
        OrtStatus* GetDimensionsCount(
            const OrtTensorTypeAndShapeInfo* info, size_t* out
        ) noexcept nogil
        OrtStatus* GetDimensions(
            const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t n
        ) noexcept nogil
        OrtStatus* CreateCpuMemoryInfo(
            int allocator, int memory, OrtMemoryInfo** out
        ) noexcept nogil
        OrtStatus* AllocatorFree(OrtAllocator* allocator, void* data) noexcept nogil
        OrtStatus* GetAllocatorWithDefaultOptions(OrtAllocator** out) noexcept nogil
        void ReleaseEnv(OrtEnv* env) noexcept nogil
        void ReleaseStatus(OrtStatus* status) noexcept nogil
        void ReleaseMemoryInfo(OrtMemoryInfo* info) noexcept nogil
        void ReleaseSession(OrtSession* session) noexcept nogil
        void ReleaseValue(OrtValue* value) noexcept nogil
        void ReleaseTypeInfo(OrtTypeInfo* info) noexcept nogil
        void ReleaseSessionOptions(OrtSessionOptions* options) noexcept nogil
        OrtStatus* RunWithBinding(
            OrtSession* session, const OrtRunOptions* options, const OrtIoBinding* binding
        ) noexcept nogil
        OrtStatus* CreateIoBinding(OrtSession* session, OrtIoBinding** out) noexcept nogil
        void ReleaseIoBinding(OrtIoBinding* binding) noexcept nogil
        OrtStatus* BindInput(
            OrtIoBinding* binding, const char* name, const OrtValue* value
        ) noexcept nogil
        OrtStatus* BindOutput(
            OrtIoBinding* binding, const char* name, const OrtValue* value
        ) noexcept nogil

    ctypedef struct OrtApiBase:
        const OrtApi* GetApi(uint32_t version) noexcept nogil
        const char* GetVersionString() noexcept nogil

    ctypedef const OrtApiBase* (*OrtGetApiBaseFn)() noexcept nogil
