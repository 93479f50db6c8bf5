from fastpath.redis_options import RedisTls

class TlsContext:
    def __new__(cls, options: RedisTls, host: str) -> TlsContext: ...
