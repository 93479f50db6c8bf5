"""Any ONNX model, in ONNX Runtime, through its C API.

Rules: the wheel's shared library is opened by path, never linked, and the Python package
`onnxruntime` is never imported (it brings a second copy of the runtime and 35 MB). There is one
environment per process, made on first use and kept to its end; one session per model; no thread
pool, no arena. Every row is a Run of its own, so that no score depends on its batch-mates.

How it works. For each of `n_threads` callers a model holds one input and one output tensor over
memory of its own, bound to the session once: a score is a copy of the row, one RunWithBinding, and
a read of the output. We allocate nothing then; what ONNX Runtime allocates inside a Run is its own
affair. The first use asks for API version 20 and scores a tiny graph whose answer is known, so that
a library with another function table is found out by an error, not by a crash in service.

Builds since 1.29 report to their maker by default, through a thread, a database in the home
directory and HTTPS. A scoring server reports to nobody: that is switched off before the library is
opened, whatever the environment said.

It does not unload the library: threads that scored keep it mapped, and a later load would pay
again. `trim_library` gives back nearly as much (of the 32 MB that the library and one session of
100 trees hold after a load, 19 MB).
"""

import importlib.metadata
import importlib.util
import os
import threading
from pathlib import Path

import numpy as np

from fastpath.errors import ModelError, RuntimeLibraryError

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlclose, dlerror, dlopen, dlsym
from posix.mman cimport MADV_DONTNEED, madvise
from posix.stdlib cimport posix_memalign

from fastpath._types cimport MAX_FEATURES, MAX_LOOPS
from fastpath.c.onnxruntime cimport (
    ORT_API_VERSION_USED,
    ORT_DEVICE_ALLOCATOR,
    ORT_ENABLE_ALL,
    ORT_LOGGING_LEVEL_ERROR,
    ORT_MEM_TYPE_DEFAULT,
    ORT_SEQUENTIAL,
    ORT_TENSOR_FLOAT,
    OrtAllocator,
    OrtApi,
    OrtApiBase,
    OrtEnv,
    OrtGetApiBaseFn,
    OrtIoBinding,
    OrtMemoryInfo,
    OrtSession,
    OrtSessionOptions,
    OrtStatus,
    OrtTensorTypeAndShapeInfo,
    OrtTypeInfo,
    OrtValue,
)
from fastpath.model cimport Model

cdef extern from "malloc.h" nogil:
    int malloc_trim(size_t pad)

# y = 2 x0 - x1 / 2 as one MatMul (opset 13, IR 7): (3, 4) gives 4.
KNOWN_GRAPH = (
    b'\x08\x07\x12\x00:U\n\x11\n\x01x\n\x01w\x12\x01y"\x06MatMul\x12\x01g*\x13\x08\x02'
    b"\x08\x01\x10\x01B\x01wJ\x08\x00\x00\x00@\x00\x00\x00\xbfZ\x13\n\x01x\x12\x0e\n\x0c"
    b"\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12"
    b"\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\r"
)

cdef enum:
    LINE_BYTES = 64
    CODE_BAD_THREAD = -1         # `thread` is not below the model's n_threads
    CODE_UNKNOWN = -2            # ONNX Runtime failed without a code


# The process's one runtime. Written under `_lock`, before any model exists; never freed.
ctypedef struct runtime_t:
    const OrtApi* api
    OrtEnv* env
    OrtMemoryInfo* memory        # "CPU, device allocator": describes our buffers
    OrtAllocator* allocator      # ONNX Runtime's default one; not ours to free

# What one caller scores with. Tensors look into the buffers.
ctypedef struct lane_t:
    float* row                   # [n_features]
    float* raw                   # [1]
    OrtValue* input
    OrtValue* output
    OrtIoBinding* binding

ctypedef struct onnx_t:
    const OrtApi* api
    OrtSession* session
    int32_t n_features
    int32_t n_threads
    void* buffers                # of all lanes
    lane_t[MAX_LOOPS] lanes


cdef runtime_t runtime
cdef object _lock = threading.RLock()
cdef str _path = None
cdef str _version = None


def library_path():
    """Find the shared library of the installed onnxruntime wheel, without importing it.

    Returns
    -------
    str
        Path of `libonnxruntime.so.<version>`.

    Raises
    ------
    RuntimeLibraryError
        The package is not installed, or brings no such library.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeLibraryError("onnxruntime is not installed: pip install onnxruntime")
    for folder in spec.submodule_search_locations:
        found = sorted((Path(folder) / "capi").glob("libonnxruntime.so*"))
        if found:
            return str(found[0])
    raise RuntimeLibraryError(
        f"no capi/libonnxruntime.so in {list(spec.submodule_search_locations)}: "
        "reinstall onnxruntime"
    )


def library_version():
    """Version of the loaded library, or of the installed package while none is loaded.

    Returns
    -------
    str

    Raises
    ------
    RuntimeLibraryError
        The package is not installed.
    """
    if _version is not None:
        return _version
    try:
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeLibraryError("onnxruntime is not installed: pip install onnxruntime") from None


def trim_library():
    """Give back what making a session left resident: for models that are served natively.

    The library's code pages leave memory (they are the file's: a later call reads them again), and
    the C allocator returns its free pages. Safe at any time, also while others score.

    Returns
    -------
    int
        Bytes of code that were let go of; 0 while no library is loaded.
    """
    cdef uintptr_t first
    cdef uintptr_t last
    n_bytes = 0
    if _path is None:
        return 0
    # Only pages that are never written may be dropped: code (the library has no text relocations).
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == _path and fields[1] == "r-xp":
            ends = fields[0].split("-")
            first = int(ends[0], 16)
            last = int(ends[1], 16)
            if madvise(<void*> first, last - first, MADV_DONTNEED) == 0:
                n_bytes += last - first
    malloc_trim(0)
    return n_bytes


cdef str take_text(OrtStatus* status):
    """Text of a failure; frees it."""
    text = runtime.api.GetErrorMessage(status).decode("utf-8", "replace")
    runtime.api.ReleaseStatus(status)
    return text.strip()


cdef int check(OrtStatus* status, str what) except -1:
    """Raise ModelError where a call failed."""
    if status is not NULL:
        raise ModelError(f"onnxruntime {_version}: {what}: {take_text(status)}")
    return 0


cdef int open_runtime(library) except -1:
    """Open the library and make the environment, once; the known graph proves the table."""
    global _path, _version
    path = os.path.realpath(library if library is not None else _path or library_path())
    with _lock:
        if runtime.api is not NULL:
            if path != _path:
                raise RuntimeLibraryError(
                    f"{_path} is loaded already, and a process has one onnxruntime: "
                    f"it cannot load {path}"
                )
            return 0
        load_table(path)
        try:
            known = OnnxModel(KNOWN_GRAPH, n_features=2, library=path)
            answer = float(known.score(np.array([[3.0, 4.0]], dtype=np.float32))[0])
        except ModelError as error:
            runtime.api = NULL
            raise RuntimeLibraryError(f"{path} cannot score a known graph: {error}") from error
        if answer != 4.0:
            runtime.api = NULL
            raise RuntimeLibraryError(f"{path} scores a known graph as {answer}, not as 4.0")
    return 0


cdef int load_table(str path) except -1:
    """Fill `runtime` from the library at `path`."""
    global _path, _version
    cdef void* handle
    cdef OrtGetApiBaseFn get_base
    cdef const OrtApiBase* base
    cdef const OrtApi* api
    cdef OrtStatus* status
    # Read once, when the library makes its environment.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    name = os.fsencode(path)
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)
    if handle is NULL:
        raise RuntimeLibraryError(
            f"cannot load onnxruntime: {dlerror().decode('utf-8', 'replace')}"
        )
    get_base = <OrtGetApiBaseFn> dlsym(handle, "OrtGetApiBase")
    base = get_base() if get_base is not NULL else NULL
    if base is NULL:
        dlclose(handle)
        raise RuntimeLibraryError(f"{path} is not onnxruntime: it has no OrtGetApiBase")
    version = base.GetVersionString().decode("ascii", "replace")
    numbers = version.split(".")
    if (
        len(numbers) < 2 or not numbers[0].isdigit() or not numbers[1].isdigit()
        or (int(numbers[0]), int(numbers[1])) < (1, ORT_API_VERSION_USED)
    ):
        raise RuntimeLibraryError(
            f"{path} is onnxruntime {version}; 1.{ORT_API_VERSION_USED} or newer is needed"
        )
    api = base.GetApi(ORT_API_VERSION_USED)
    if api is NULL:
        raise RuntimeLibraryError(
            f"onnxruntime {version} has no C API version {ORT_API_VERSION_USED}: {path}"
        )
    status = api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "scoregate", &runtime.env)
    if status is NULL:
        status = api.DisableTelemetryEvents(runtime.env)
    if status is NULL:
        status = api.CreateCpuMemoryInfo(
            ORT_DEVICE_ALLOCATOR, ORT_MEM_TYPE_DEFAULT, &runtime.memory
        )
    if status is NULL:
        status = api.GetAllocatorWithDefaultOptions(&runtime.allocator)
    if status is not NULL:
        text = api.GetErrorMessage(status).decode("utf-8", "replace")
        api.ReleaseStatus(status)
        raise RuntimeLibraryError(f"onnxruntime {version} does not start: {text}")
    runtime.api = api
    _path = path
    _version = version
    return 0


cdef int32_t score_onnx(
    void* impl, int32_t thread, const float* const* rows, int32_t n_rows, float* out_raw
) noexcept nogil:
    cdef const onnx_t* model = <const onnx_t*> impl
    cdef const lane_t* lane
    cdef OrtStatus* status
    cdef int32_t code
    cdef int32_t i
    if thread < 0 or thread >= model.n_threads:
        return CODE_BAD_THREAD
    lane = &model.lanes[thread]
    for i in range(n_rows):
        memcpy(lane.row, rows[i], <size_t> model.n_features * sizeof(float))
        status = model.api.RunWithBinding(model.session, NULL, lane.binding)
        if status is not NULL:
            code = model.api.GetErrorCode(status)
            model.api.ReleaseStatus(status)
            return code if code != 0 else CODE_UNKNOWN
        out_raw[i] = lane.raw[0]
    return 0


cdef class OnnxModel(Model):
    """A model in ONNX Runtime.

    Parameters
    ----------
    model : bytes
        A serialized ModelProto with one input, float32 [N, n_features] (N free or 1), whose
        first output is float32 [N] or [N, 1]: the raw score. Not kept.
    n_features : int
        1 to 1024.
    n_threads : int
        How many threads may score at once, each with a `thread` number below this; 1 to 64.
    library : str, optional
        Path of the shared library; the installed wheel's by default.

    Raises
    ------
    ModelError
        ONNX Runtime refuses the model (its own text follows), or the model's inputs and outputs
        are not as above.
    RuntimeLibraryError
        The library is missing, too old, not onnxruntime, or another one is loaded already.

    Notes
    -----
    `score` fails with ModelError and ONNX Runtime's error code, -1 for a thread number that
    the model has no tensors for. The GIL is released while a session is made and while it scores.
    """

    cdef onnx_t onnx
    cdef int output_dimensions

    def __cinit__(self, *_, **__):
        memset(&self.onnx, 0, sizeof(onnx_t))

    def __init__(self, model, *, n_features, n_threads=1, library=None):
        if self.onnx.session is not NULL:
            raise ModelError("an OnnxModel is immutable; make a new one")
        if not isinstance(model, bytes):
            raise TypeError(f"model must be bytes, it is {type(model).__name__}")
        if not 1 <= n_features <= MAX_FEATURES:
            raise ModelError(f"{n_features} features; 1 to {MAX_FEATURES} are supported")
        if not 1 <= n_threads <= MAX_LOOPS:
            raise ModelError(f"{n_threads} threads; 1 to {MAX_LOOPS} are supported")
        open_runtime(library)
        self.onnx.api = runtime.api
        self.onnx.n_features = n_features
        self.onnx.n_threads = n_threads
        self.make_session(model)
        self.check_signature()
        self.make_lanes()
        self.n_features = n_features
        self.table.n_features = n_features
        self.table.impl = &self.onnx
        self.table.score_rows = score_onnx
        self.warm_up()

    def __dealloc__(self):
        cdef int32_t i
        cdef lane_t* lane
        if self.onnx.api is NULL:
            return
        for i in range(self.onnx.n_threads):
            lane = &self.onnx.lanes[i]
            if lane.binding is not NULL:
                self.onnx.api.ReleaseIoBinding(lane.binding)
            if lane.input is not NULL:
                self.onnx.api.ReleaseValue(lane.input)
            if lane.output is not NULL:
                self.onnx.api.ReleaseValue(lane.output)
        if self.onnx.session is not NULL:
            self.onnx.api.ReleaseSession(self.onnx.session)
        free(self.onnx.buffers)

    cdef int make_session(self, bytes model) except -1:
        cdef OrtSessionOptions* options = NULL
        cdef OrtStatus* status
        cdef const OrtApi* api = self.onnx.api
        cdef const char* data = model
        cdef size_t size = len(model)
        check(api.CreateSessionOptions(&options), "cannot make session options")
        status = api.SetIntraOpNumThreads(options, 1)
        if status is NULL:
            status = api.SetInterOpNumThreads(options, 1)
        if status is NULL:
            status = api.SetSessionExecutionMode(options, ORT_SEQUENTIAL)
        if status is NULL:
            status = api.SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL)
        if status is NULL:
            status = api.SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_ERROR)
        if status is NULL:
            status = api.DisableCpuMemArena(options)
        if status is NULL:
            with nogil:
                status = api.CreateSessionFromArray(
                    runtime.env, data, size, options, &self.onnx.session
                )
        api.ReleaseSessionOptions(options)
        return check(status, "cannot load the model")

    cdef int check_signature(self) except -1:
        """One float32 input [N, n_features]; a first output float32 [N] or [N, 1]."""
        cdef size_t n_inputs = 0
        cdef size_t n_outputs = 0
        cdef OrtTypeInfo* info = NULL
        check(self.onnx.api.SessionGetInputCount(self.onnx.session, &n_inputs), "inputs")
        check(self.onnx.api.SessionGetOutputCount(self.onnx.session, &n_outputs), "outputs")
        if n_inputs != 1:
            raise ModelError(f"the model has {n_inputs} inputs; one float32 matrix is needed")
        if n_outputs == 0:
            raise ModelError("the model has no output")
        check(self.onnx.api.SessionGetInputTypeInfo(self.onnx.session, 0, &info), "input type")
        shape = tensor_shape(info, "input")
        if len(shape) != 2 or shape[0] not in (-1, 1) or shape[1] != self.onnx.n_features:
            raise ModelError(
                f"the model's input has shape {shape_text(shape)}; "
                f"[N, {self.onnx.n_features}] is needed"
            )
        check(self.onnx.api.SessionGetOutputTypeInfo(self.onnx.session, 0, &info), "output type")
        shape = tensor_shape(info, "output")
        if len(shape) not in (1, 2) or shape[0] not in (-1, 1) or shape[1:] not in ([], [1]):
            raise ModelError(
                f"the model's first output has shape {shape_text(shape)}; [N] or [N, 1] is needed"
            )
        self.output_dimensions = len(shape)
        return 0

    cdef int make_lanes(self) except -1:
        """One pair of bound tensors for each thread, each on cache lines of its own."""
        cdef const OrtApi* api = self.onnx.api
        cdef size_t row_bytes = -(-self.onnx.n_features * sizeof(float) // LINE_BYTES) * LINE_BYTES
        cdef size_t lane_bytes = row_bytes + LINE_BYTES
        cdef int64_t[2] shape
        cdef lane_t* lane
        cdef char* input_name = NULL
        cdef char* output_name = NULL
        cdef int32_t i
        if posix_memalign(&self.onnx.buffers, LINE_BYTES, lane_bytes * self.onnx.n_threads) != 0:
            raise MemoryError
        memset(self.onnx.buffers, 0, lane_bytes * self.onnx.n_threads)
        shape[0] = 1
        try:
            check(
                api.SessionGetInputName(self.onnx.session, 0, runtime.allocator, &input_name),
                "input name",
            )
            check(
                api.SessionGetOutputName(self.onnx.session, 0, runtime.allocator, &output_name),
                "output name",
            )
            for i in range(self.onnx.n_threads):
                lane = &self.onnx.lanes[i]
                lane.row = <float*> (<char*> self.onnx.buffers + i * lane_bytes)
                lane.raw = <float*> (<char*> lane.row + row_bytes)
                shape[1] = self.onnx.n_features
                check(
                    api.CreateTensorWithDataAsOrtValue(
                        runtime.memory, lane.row, self.onnx.n_features * sizeof(float), shape, 2,
                        ORT_TENSOR_FLOAT, &lane.input
                    ),
                    "input tensor",
                )
                shape[1] = 1
                check(
                    api.CreateTensorWithDataAsOrtValue(
                        runtime.memory, lane.raw, sizeof(float), shape, self.output_dimensions,
                        ORT_TENSOR_FLOAT, &lane.output
                    ),
                    "output tensor",
                )
                check(api.CreateIoBinding(self.onnx.session, &lane.binding), "binding")
                check(api.BindInput(lane.binding, input_name, lane.input), "bind the input")
                check(api.BindOutput(lane.binding, output_name, lane.output), "bind the output")
        finally:
            release_text(input_name)
            release_text(output_name)
        return 0

    cdef int warm_up(self) except -1:
        """One score per lane: a model that cannot score is refused here, with the reason."""
        cdef OrtStatus* status
        cdef int32_t i
        for i in range(self.onnx.n_threads):
            self.onnx.lanes[i].raw[0] = NAN
            with nogil:
                status = self.onnx.api.RunWithBinding(
                    self.onnx.session, NULL, self.onnx.lanes[i].binding
                )
            check(status, "cannot score a row of zeros")
        return 0


cdef int release_text(char* text) except -1:
    if text is not NULL:
        check(runtime.api.AllocatorFree(runtime.allocator, text), "free a name")
    return 0


cdef list tensor_shape(OrtTypeInfo* info, str what):
    """Dimensions of a float32 tensor, -1 where free; frees `info`."""
    cdef const OrtTensorTypeAndShapeInfo* tensor = NULL
    cdef int type_code = 0
    cdef size_t n = 0
    cdef size_t i
    cdef int64_t[8] shape
    try:
        check(runtime.api.CastTypeInfoToTensorInfo(info, &tensor), f"type of the {what}")
        if tensor is not NULL:
            check(runtime.api.GetTensorElementType(tensor, &type_code), f"type of the {what}")
        if tensor is NULL or type_code != ORT_TENSOR_FLOAT:
            raise ModelError(f"the model's {what} is not a float32 tensor")
        check(runtime.api.GetDimensionsCount(tensor, &n), f"shape of the {what}")
        if n > 8:
            raise ModelError(f"the model's {what} has {n} dimensions")
        if n:
            check(runtime.api.GetDimensions(tensor, shape, n), f"shape of the {what}")
        return [shape[i] for i in range(n)]
    finally:
        runtime.api.ReleaseTypeInfo(info)


cdef str shape_text(list shape):
    return "[" + ", ".join("N" if n < 0 else str(n) for n in shape) + "]"
