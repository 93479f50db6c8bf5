from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StoreState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STORE_STATE_UNSPECIFIED: _ClassVar[StoreState]
    STORE_STATE_OK: _ClassVar[StoreState]
    STORE_STATE_DEGRADED: _ClassVar[StoreState]
    STORE_STATE_UNAVAILABLE: _ClassVar[StoreState]

class ServingState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVING_STATE_UNSPECIFIED: _ClassVar[ServingState]
    SERVING_STATE_STARTING: _ClassVar[ServingState]
    SERVING_STATE_SERVING: _ClassVar[ServingState]
    SERVING_STATE_NOT_READY: _ClassVar[ServingState]
    SERVING_STATE_DRAINING: _ClassVar[ServingState]
STORE_STATE_UNSPECIFIED: StoreState
STORE_STATE_OK: StoreState
STORE_STATE_DEGRADED: StoreState
STORE_STATE_UNAVAILABLE: StoreState
SERVING_STATE_UNSPECIFIED: ServingState
SERVING_STATE_STARTING: ServingState
SERVING_STATE_SERVING: ServingState
SERVING_STATE_NOT_READY: ServingState
SERVING_STATE_DRAINING: ServingState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("server_version", "started_time_ms", "state", "state_reason", "plan_generation", "default_model", "models", "addresses", "loops", "resident_bytes", "stores")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    PLAN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LOOPS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    started_time_ms: int
    state: ServingState
    state_reason: str
    plan_generation: int
    default_model: str
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    addresses: _containers.RepeatedCompositeFieldContainer[Address]
    loops: _containers.RepeatedCompositeFieldContainer[LoopStatus]
    resident_bytes: int
    stores: _containers.RepeatedCompositeFieldContainer[StoreStatus]
    def __init__(self, server_version: _Optional[str] = ..., started_time_ms: _Optional[int] = ..., state: _Optional[_Union[ServingState, str]] = ..., state_reason: _Optional[str] = ..., plan_generation: _Optional[int] = ..., default_model: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ..., addresses: _Optional[_Iterable[_Union[Address, _Mapping]]] = ..., loops: _Optional[_Iterable[_Union[LoopStatus, _Mapping]]] = ..., resident_bytes: _Optional[int] = ..., stores: _Optional[_Iterable[_Union[StoreStatus, _Mapping]]] = ...) -> None: ...

class StoreStatus(_message.Message):
    __slots__ = ("table", "kind", "address", "group", "state", "detail", "generation", "n_records", "reads")
    class ReadsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    N_RECORDS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    table: str
    kind: str
    address: str
    group: str
    state: StoreState
    detail: str
    generation: str
    n_records: int
    reads: _containers.ScalarMap[str, int]
    def __init__(self, table: _Optional[str] = ..., kind: _Optional[str] = ..., address: _Optional[str] = ..., group: _Optional[str] = ..., state: _Optional[_Union[StoreState, str]] = ..., detail: _Optional[str] = ..., generation: _Optional[str] = ..., n_records: _Optional[int] = ..., reads: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model", "version", "arm", "weight_basis_points", "engine", "sha256", "predictions", "resident_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    arm: str
    weight_basis_points: int
    engine: str
    sha256: bytes
    predictions: int
    resident_bytes: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., arm: _Optional[str] = ..., weight_basis_points: _Optional[int] = ..., engine: _Optional[str] = ..., sha256: _Optional[bytes] = ..., predictions: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class Address(_message.Message):
    __slots__ = ("door", "address")
    DOOR_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    door: str
    address: str
    def __init__(self, door: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class LoopStatus(_message.Message):
    __slots__ = ("index", "open_connections", "calls", "iterations")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OPEN_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    index: int
    open_connections: int
    calls: int
    iterations: int
    def __init__(self, index: _Optional[int] = ..., open_connections: _Optional[int] = ..., calls: _Optional[int] = ..., iterations: _Optional[int] = ...) -> None: ...
