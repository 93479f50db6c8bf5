"""OpenSSL 3: a TLS client over a socket that does not block. Declarations only."""

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    enum:
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_ERROR_SYSCALL
        SSL_ERROR_ZERO_RETURN
        SSL_FILETYPE_PEM
        SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_OP_IGNORE_UNEXPECTED_EOF
        SSL_VERIFY_NONE
        SSL_VERIFY_PEER
        TLS1_2_VERSION
        X509_V_OK
    const SSL_METHOD* TLS_client_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method)
    void SSL_CTX_free(SSL_CTX* context)
    int SSL_CTX_set_min_proto_version(SSL_CTX* context, int version)
    long SSL_CTX_set_mode(SSL_CTX* context, long mode)
    unsigned long SSL_CTX_set_options(SSL_CTX* context, unsigned long options)
    void SSL_CTX_set_verify(SSL_CTX* context, int mode, void* callback)
    int SSL_CTX_set_default_verify_paths(SSL_CTX* context)
    int SSL_CTX_load_verify_file(SSL_CTX* context, const char* file)
    int SSL_CTX_use_certificate_chain_file(SSL_CTX* context, const char* file)
    int SSL_CTX_use_PrivateKey_file(SSL_CTX* context, const char* file, int type)
    int SSL_CTX_check_private_key(const SSL_CTX* context)
    X509_VERIFY_PARAM* SSL_CTX_get0_param(SSL_CTX* context)
    int X509_VERIFY_PARAM_set1_host(X509_VERIFY_PARAM* param, const char* name, size_t size)
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM* param, const char* address)
    const char* X509_verify_cert_error_string(long code)
    SSL* SSL_new(SSL_CTX* context)
    void SSL_free(SSL* ssl)
    int SSL_set_fd(SSL* ssl, int fd)
    long SSL_set_tlsext_host_name(SSL* ssl, const char* name)
    int SSL_connect(SSL* ssl)
    int SSL_read(SSL* ssl, void* buffer, int size)
    int SSL_write(SSL* ssl, const void* buffer, int size)
    int SSL_get_error(const SSL* ssl, int result)
    long SSL_get_verify_result(const SSL* ssl)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_error()
    const char* ERR_reason_error_string(unsigned long code)
