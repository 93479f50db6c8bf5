"""libnghttp2: what a client needs beside what the server uses."""

from libc.stdint cimport int32_t, uint32_t

from fastpath.c.nghttp2 cimport (
    nghttp2_data_provider,
    nghttp2_mem,
    nghttp2_nv,
    nghttp2_option,
    nghttp2_session,
    nghttp2_session_callbacks,
)

cdef extern from "nghttp2/nghttp2.h" nogil:
    # Whole, where the server's view has only some members.
    ctypedef struct nghttp2_priority_spec:
        pass
    enum:
        NGHTTP2_SETTINGS_ENABLE_PUSH
        NGHTTP2_CANCEL
        NGHTTP2_ERR_CALLBACK_FAILURE

    int nghttp2_session_client_new3(
        nghttp2_session**, const nghttp2_session_callbacks*, void* user, const nghttp2_option*,
        nghttp2_mem*)
    int32_t nghttp2_submit_request(
        nghttp2_session*, const nghttp2_priority_spec*, const nghttp2_nv*, size_t n_nv,
        const nghttp2_data_provider*, void* stream_user_data)
    uint32_t nghttp2_session_get_remote_settings(nghttp2_session*, int settings_id)
    const char* nghttp2_http2_strerror(uint32_t error_code)
