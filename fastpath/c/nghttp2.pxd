"""libnghttp2 1.43 or newer: what the fast door uses of it."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    # Newer than 1.43, or patched in by distributions: NULL where the library lacks them.
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <nghttp2/nghttp2.h>
    #pragma weak nghttp2_option_set_stream_reset_rate_limit
    #pragma weak nghttp2_option_set_max_continuations
    #pragma weak nghttp2_option_set_server_fallback_rfc7540_priorities
    extern void nghttp2_option_set_stream_reset_rate_limit(
        nghttp2_option *option, uint64_t burst, uint64_t rate);
    extern void nghttp2_option_set_max_continuations(nghttp2_option *option, size_t val);
    extern void nghttp2_option_set_server_fallback_rfc7540_priorities(
        nghttp2_option *option, int val);
    """
    ctypedef void (*set_reset_rate_limit_fn)(
        nghttp2_option*, uint64_t burst, uint64_t rate) noexcept nogil
    ctypedef void (*set_max_continuations_fn)(nghttp2_option*, size_t value) noexcept nogil
    ctypedef void (*set_fallback_priorities_fn)(nghttp2_option*, int value) noexcept nogil
    set_reset_rate_limit_fn nghttp2_option_set_stream_reset_rate_limit
    set_max_continuations_fn nghttp2_option_set_max_continuations
    set_fallback_priorities_fn nghttp2_option_set_server_fallback_rfc7540_priorities

cdef extern from "nghttp2/nghttp2.h" nogil:
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass

    ctypedef struct nghttp2_mem:
        void* mem_user_data
        void* (*malloc)(size_t size, void* user) noexcept nogil
        void (*free)(void* pointer, void* user) noexcept nogil
        void* (*calloc)(size_t n, size_t size, void* user) noexcept nogil
        void* (*realloc)(void* pointer, size_t size, void* user) noexcept nogil

    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags

    ctypedef struct nghttp2_headers:
        int cat

    ctypedef struct nghttp2_goaway:
        int32_t last_stream_id
        uint32_t error_code

    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_headers headers
        nghttp2_goaway goaway

    ctypedef union nghttp2_data_source:
        int fd
        void* ptr

    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session* session, int32_t stream_id, uint8_t* buffer, size_t length,
        uint32_t* data_flags, nghttp2_data_source* source, void* user) noexcept nogil

    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    enum:
        NGHTTP2_DATA
        NGHTTP2_HEADERS
        NGHTTP2_PRIORITY
        NGHTTP2_RST_STREAM
        NGHTTP2_SETTINGS
        NGHTTP2_PING
        NGHTTP2_GOAWAY
        NGHTTP2_FLAG_NONE
        NGHTTP2_FLAG_ACK
        NGHTTP2_FLAG_END_STREAM
        NGHTTP2_HCAT_REQUEST
        NGHTTP2_NV_FLAG_NO_COPY_NAME
        NGHTTP2_NV_FLAG_NO_COPY_VALUE
        NGHTTP2_DATA_FLAG_EOF
        NGHTTP2_DATA_FLAG_NO_END_STREAM
        NGHTTP2_SETTINGS_HEADER_TABLE_SIZE
        NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        NGHTTP2_NO_ERROR
        NGHTTP2_INTERNAL_ERROR
        NGHTTP2_ENHANCE_YOUR_CALM
        NGHTTP2_ERR_BAD_CLIENT_MAGIC
        NGHTTP2_ERR_FLOODED
        NGHTTP2_ERR_NOMEM
        NGHTTP2_ERR_CALLBACK_FAILURE
        NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE

    ctypedef int (*nghttp2_on_begin_headers_callback)(
        nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil
    ctypedef int (*nghttp2_on_header_callback)(
        nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t n_name,
        const uint8_t* value, size_t n_value, uint8_t flags, void*) noexcept nogil
    ctypedef int (*nghttp2_on_data_chunk_recv_callback)(
        nghttp2_session*, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n_data,
        void*) noexcept nogil
    ctypedef int (*nghttp2_on_frame_recv_callback)(
        nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil
    ctypedef int (*nghttp2_on_frame_send_callback)(
        nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil
    ctypedef int (*nghttp2_on_stream_close_callback)(
        nghttp2_session*, int32_t stream_id, uint32_t error_code, void*) noexcept nogil

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks**)
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks*)
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks*, nghttp2_on_begin_headers_callback)
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks*, nghttp2_on_header_callback)
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks*, nghttp2_on_data_chunk_recv_callback)
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks*, nghttp2_on_frame_recv_callback)
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks*, nghttp2_on_frame_send_callback)
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks*, nghttp2_on_stream_close_callback)

    int nghttp2_option_new(nghttp2_option**)
    void nghttp2_option_del(nghttp2_option*)
    void nghttp2_option_set_no_closed_streams(nghttp2_option*, int)
    void nghttp2_option_set_max_outbound_ack(nghttp2_option*, size_t)
    void nghttp2_option_set_max_settings(nghttp2_option*, size_t)

    int nghttp2_session_server_new3(
        nghttp2_session**, const nghttp2_session_callbacks*, void* user, const nghttp2_option*,
        nghttp2_mem*)
    void nghttp2_session_del(nghttp2_session*)
    ssize_t nghttp2_session_mem_recv(nghttp2_session*, const uint8_t* data, size_t n_data)
    ssize_t nghttp2_session_mem_send(nghttp2_session*, const uint8_t** data)
    int nghttp2_session_want_read(nghttp2_session*)
    int nghttp2_session_want_write(nghttp2_session*)
    int nghttp2_session_set_stream_user_data(nghttp2_session*, int32_t stream_id, void*)
    void* nghttp2_session_get_stream_user_data(nghttp2_session*, int32_t stream_id)
    int nghttp2_session_set_local_window_size(
        nghttp2_session*, uint8_t flags, int32_t stream_id, int32_t window_size)
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session*)
    int nghttp2_submit_settings(
        nghttp2_session*, uint8_t flags, const nghttp2_settings_entry*, size_t n_entries)
    int nghttp2_submit_response(
        nghttp2_session*, int32_t stream_id, const nghttp2_nv*, size_t n_nv,
        const nghttp2_data_provider*)
    int nghttp2_submit_trailer(nghttp2_session*, int32_t stream_id, const nghttp2_nv*, size_t n_nv)
    int nghttp2_submit_rst_stream(
        nghttp2_session*, uint8_t flags, int32_t stream_id, uint32_t error_code)
    int nghttp2_submit_ping(nghttp2_session*, uint8_t flags, const uint8_t* opaque)
    int nghttp2_submit_goaway(
        nghttp2_session*, uint8_t flags, int32_t last_stream_id, uint32_t error_code,
        const uint8_t* opaque, size_t n_opaque)
    int nghttp2_submit_shutdown_notice(nghttp2_session*)
