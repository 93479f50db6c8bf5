from fastpath.redis_options import BreakerSpec as BreakerSpec
from fastpath.redis_options import RedisTls as RedisTls
from fastpath.store import OnlineStore

class RedisStore(OnlineStore):
    def __new__(
        cls,
        address: str,
        *,
        replica: str = "",
        username: str = "",
        password: str = "",
        database: int = 0,
        key_prefix: str = "scoregate:",
        tls: RedisTls | None = None,
        connect_timeout_ms: float = 1000,
        stall_us: float = 20_000,
        hedge_after_us: float = 0,
        cache_bytes: int = 0,
        cache_ttl_ms: float = 0,
        breaker: BreakerSpec = ...,
        seed: int | None = None,
    ) -> RedisStore: ...
    @property
    def address(self) -> str: ...
    @property
    def replica(self) -> str: ...
    @property
    def last_error(self) -> str: ...
