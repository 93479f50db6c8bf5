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

class ModelVersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_VERSION_STATE_UNSPECIFIED: _ClassVar[ModelVersionState]
    MODEL_VERSION_STATE_AVAILABLE: _ClassVar[ModelVersionState]
    MODEL_VERSION_STATE_LOADED: _ClassVar[ModelVersionState]
    MODEL_VERSION_STATE_SERVING: _ClassVar[ModelVersionState]
    MODEL_VERSION_STATE_BROKEN: _ClassVar[ModelVersionState]
STORE_STATE_UNSPECIFIED: StoreState
STORE_STATE_OK: StoreState
STORE_STATE_DEGRADED: StoreState
STORE_STATE_UNAVAILABLE: StoreState
SERVING_STATE_UNSPECIFIED: ServingState
SERVING_STATE_STARTING: ServingState
SERVING_STATE_SERVING: ServingState
SERVING_STATE_NOT_READY: ServingState
SERVING_STATE_DRAINING: ServingState
MODEL_VERSION_STATE_UNSPECIFIED: ModelVersionState
MODEL_VERSION_STATE_AVAILABLE: ModelVersionState
MODEL_VERSION_STATE_LOADED: ModelVersionState
MODEL_VERSION_STATE_SERVING: ModelVersionState
MODEL_VERSION_STATE_BROKEN: ModelVersionState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("server_version", "started_time_ms", "state", "state_reason", "plan_generation", "default_model", "models", "addresses", "loops", "resident_bytes", "stores", "frozen")
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
    FROZEN_FIELD_NUMBER: _ClassVar[int]
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
    frozen: str
    def __init__(self, server_version: _Optional[str] = ..., started_time_ms: _Optional[int] = ..., state: _Optional[_Union[ServingState, str]] = ..., state_reason: _Optional[str] = ..., plan_generation: _Optional[int] = ..., default_model: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ..., addresses: _Optional[_Iterable[_Union[Address, _Mapping]]] = ..., loops: _Optional[_Iterable[_Union[LoopStatus, _Mapping]]] = ..., resident_bytes: _Optional[int] = ..., stores: _Optional[_Iterable[_Union[StoreStatus, _Mapping]]] = ..., frozen: _Optional[str] = ...) -> None: ...

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

class ChangeOptions(_message.Message):
    __slots__ = ("why", "expected_generation", "dry_run", "who")
    WHY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    why: str
    expected_generation: int
    dry_run: bool
    who: str
    def __init__(self, why: _Optional[str] = ..., expected_generation: _Optional[int] = ..., dry_run: _Optional[bool] = ..., who: _Optional[str] = ...) -> None: ...

class ChangeResponse(_message.Message):
    __slots__ = ("before", "after", "dry_run", "n_buckets_moved", "notes")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    N_BUCKETS_MOVED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    before: PlanDescription
    after: PlanDescription
    dry_run: bool
    n_buckets_moved: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, before: _Optional[_Union[PlanDescription, _Mapping]] = ..., after: _Optional[_Union[PlanDescription, _Mapping]] = ..., dry_run: _Optional[bool] = ..., n_buckets_moved: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanDescription(_message.Message):
    __slots__ = ("generation", "default_model", "models", "frozen")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    generation: int
    default_model: str
    models: _containers.RepeatedCompositeFieldContainer[ModelPlan]
    frozen: str
    def __init__(self, generation: _Optional[int] = ..., default_model: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelPlan, _Mapping]]] = ..., frozen: _Optional[str] = ...) -> None: ...

class ModelPlan(_message.Message):
    __slots__ = ("model", "arms", "overrides", "labels", "salt", "explore_share")
    class OverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_SHARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmPlan]
    overrides: _containers.ScalarMap[str, str]
    labels: _containers.ScalarMap[str, str]
    salt: str
    explore_share: float
    def __init__(self, model: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmPlan, _Mapping]]] = ..., overrides: _Optional[_Mapping[str, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., salt: _Optional[str] = ..., explore_share: _Optional[float] = ...) -> None: ...

class ArmPlan(_message.Message):
    __slots__ = ("arm", "version", "sha256", "weight_basis_points", "thresholds")
    ARM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    arm: str
    version: str
    sha256: bytes
    weight_basis_points: int
    thresholds: _containers.RepeatedCompositeFieldContainer[ThresholdPlan]
    def __init__(self, arm: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., weight_basis_points: _Optional[int] = ..., thresholds: _Optional[_Iterable[_Union[ThresholdPlan, _Mapping]]] = ...) -> None: ...

class ThresholdPlan(_message.Message):
    __slots__ = ("name", "score", "raw_score", "is_override")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORE_FIELD_NUMBER: _ClassVar[int]
    IS_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    name: str
    score: float
    raw_score: float
    is_override: bool
    def __init__(self, name: _Optional[str] = ..., score: _Optional[float] = ..., raw_score: _Optional[float] = ..., is_override: _Optional[bool] = ...) -> None: ...

class DeployRequest(_message.Message):
    __slots__ = ("model", "version", "traffic_basis_points", "arm", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    traffic_basis_points: int
    arm: str
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., traffic_basis_points: _Optional[int] = ..., arm: _Optional[str] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetTrafficRequest(_message.Message):
    __slots__ = ("model", "basis_points", "options")
    class BasisPointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    basis_points: _containers.ScalarMap[str, int]
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., basis_points: _Optional[_Mapping[str, int]] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("model", "arm", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    arm: str
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., arm: _Optional[str] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("generation", "options")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    options: ChangeOptions
    def __init__(self, generation: _Optional[int] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetThresholdsRequest(_message.Message):
    __slots__ = ("model", "arm", "scores", "options")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    arm: str
    scores: _containers.ScalarMap[str, float]
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., arm: _Optional[str] = ..., scores: _Optional[_Mapping[str, float]] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetOverridesRequest(_message.Message):
    __slots__ = ("model", "set", "remove", "clear", "options")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    set: _containers.ScalarMap[str, str]
    remove: _containers.RepeatedScalarFieldContainer[str]
    clear: bool
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., set: _Optional[_Mapping[str, str]] = ..., remove: _Optional[_Iterable[str]] = ..., clear: _Optional[bool] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetLabelsRequest(_message.Message):
    __slots__ = ("model", "set", "remove", "options")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    set: _containers.ScalarMap[str, str]
    remove: _containers.RepeatedScalarFieldContainer[str]
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., set: _Optional[_Mapping[str, str]] = ..., remove: _Optional[_Iterable[str]] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class RetireRequest(_message.Message):
    __slots__ = ("model", "arm", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    arm: str
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., arm: _Optional[str] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("frozen", "options")
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    frozen: bool
    options: ChangeOptions
    def __init__(self, frozen: _Optional[bool] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetDefaultModelRequest(_message.Message):
    __slots__ = ("model", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class SetExplorationRequest(_message.Message):
    __slots__ = ("model", "share", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    share: float
    options: ChangeOptions
    def __init__(self, model: _Optional[str] = ..., share: _Optional[float] = ..., options: _Optional[_Union[ChangeOptions, _Mapping]] = ...) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("limit", "before_generation", "model")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before_generation: int
    model: str
    def __init__(self, limit: _Optional[int] = ..., before_generation: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class GetHistoryResponse(_message.Message):
    __slots__ = ("changes", "has_more")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    has_more: bool
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("generation", "time_ms", "who", "is_verified", "verb", "arguments", "why", "before_generation", "after")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    IS_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    generation: int
    time_ms: int
    who: str
    is_verified: bool
    verb: str
    arguments: str
    why: str
    before_generation: int
    after: PlanDescription
    def __init__(self, generation: _Optional[int] = ..., time_ms: _Optional[int] = ..., who: _Optional[str] = ..., is_verified: _Optional[bool] = ..., verb: _Optional[str] = ..., arguments: _Optional[str] = ..., why: _Optional[str] = ..., before_generation: _Optional[int] = ..., after: _Optional[_Union[PlanDescription, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("interval_ms",)
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    def __init__(self, interval_ms: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("plan", "change", "traffic")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    plan: PlanDescription
    change: Change
    traffic: TrafficReport
    def __init__(self, plan: _Optional[_Union[PlanDescription, _Mapping]] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., traffic: _Optional[_Union[TrafficReport, _Mapping]] = ...) -> None: ...

class TrafficReport(_message.Message):
    __slots__ = ("generation", "interval_ms", "arms")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    interval_ms: int
    arms: _containers.RepeatedCompositeFieldContainer[ArmTraffic]
    def __init__(self, generation: _Optional[int] = ..., interval_ms: _Optional[int] = ..., arms: _Optional[_Iterable[_Union[ArmTraffic, _Mapping]]] = ...) -> None: ...

class ArmTraffic(_message.Message):
    __slots__ = ("model", "arm", "version", "calls_per_s", "degraded_per_s", "errors_per_s", "p50_us", "p99_us", "decisions_per_s")
    class DecisionsPerSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_S_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_PER_S_FIELD_NUMBER: _ClassVar[int]
    ERRORS_PER_S_FIELD_NUMBER: _ClassVar[int]
    P50_US_FIELD_NUMBER: _ClassVar[int]
    P99_US_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_PER_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    arm: str
    version: str
    calls_per_s: float
    degraded_per_s: float
    errors_per_s: float
    p50_us: float
    p99_us: float
    decisions_per_s: _containers.ScalarMap[str, float]
    def __init__(self, model: _Optional[str] = ..., arm: _Optional[str] = ..., version: _Optional[str] = ..., calls_per_s: _Optional[float] = ..., degraded_per_s: _Optional[float] = ..., errors_per_s: _Optional[float] = ..., p50_us: _Optional[float] = ..., p99_us: _Optional[float] = ..., decisions_per_s: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelVersions]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelVersions, _Mapping]]] = ...) -> None: ...

class ModelVersions(_message.Message):
    __slots__ = ("model", "is_default", "versions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    is_default: bool
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, model: _Optional[str] = ..., is_default: _Optional[bool] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "state", "detail", "labels", "arm", "weight_basis_points", "sha256", "resident_bytes", "engine", "created")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: ModelVersionState
    detail: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    arm: str
    weight_basis_points: int
    sha256: bytes
    resident_bytes: int
    engine: str
    created: str
    def __init__(self, version: _Optional[str] = ..., state: _Optional[_Union[ModelVersionState, str]] = ..., detail: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., arm: _Optional[str] = ..., weight_basis_points: _Optional[int] = ..., sha256: _Optional[bytes] = ..., resident_bytes: _Optional[int] = ..., engine: _Optional[str] = ..., created: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("version", "load_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    load_ms: float
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ..., load_ms: _Optional[float] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class GetDriftRequest(_message.Message):
    __slots__ = ("model", "version", "histograms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    histograms: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., histograms: _Optional[bool] = ...) -> None: ...

class GetDriftResponse(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[DriftReport]
    def __init__(self, reports: _Optional[_Iterable[_Union[DriftReport, _Mapping]]] = ...) -> None: ...

class DriftReport(_message.Message):
    __slots__ = ("model", "version", "state", "trouble", "evaluated_time_ms", "score", "mean", "drifted_share", "reasons", "fast", "slow", "features", "raw_score", "slow_features", "n_tests", "alpha", "warn", "retrain", "reference_name", "reference_time_ms", "n_reference_rows", "now_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_SHARE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FAST_FIELD_NUMBER: _ClassVar[int]
    SLOW_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORE_FIELD_NUMBER: _ClassVar[int]
    SLOW_FEATURES_FIELD_NUMBER: _ClassVar[int]
    N_TESTS_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    WARN_FIELD_NUMBER: _ClassVar[int]
    RETRAIN_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_NAME_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    N_REFERENCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: str
    trouble: str
    evaluated_time_ms: int
    score: float
    mean: float
    drifted_share: float
    reasons: _containers.RepeatedScalarFieldContainer[str]
    fast: DriftWindow
    slow: DriftWindow
    features: _containers.RepeatedCompositeFieldContainer[FeatureDrift]
    raw_score: FeatureDrift
    slow_features: _containers.RepeatedCompositeFieldContainer[FeatureDrift]
    n_tests: int
    alpha: float
    warn: float
    retrain: float
    reference_name: str
    reference_time_ms: int
    n_reference_rows: int
    now_ms: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., trouble: _Optional[str] = ..., evaluated_time_ms: _Optional[int] = ..., score: _Optional[float] = ..., mean: _Optional[float] = ..., drifted_share: _Optional[float] = ..., reasons: _Optional[_Iterable[str]] = ..., fast: _Optional[_Union[DriftWindow, _Mapping]] = ..., slow: _Optional[_Union[DriftWindow, _Mapping]] = ..., features: _Optional[_Iterable[_Union[FeatureDrift, _Mapping]]] = ..., raw_score: _Optional[_Union[FeatureDrift, _Mapping]] = ..., slow_features: _Optional[_Iterable[_Union[FeatureDrift, _Mapping]]] = ..., n_tests: _Optional[int] = ..., alpha: _Optional[float] = ..., warn: _Optional[float] = ..., retrain: _Optional[float] = ..., reference_name: _Optional[str] = ..., reference_time_ms: _Optional[int] = ..., n_reference_rows: _Optional[int] = ..., now_ms: _Optional[int] = ...) -> None: ...

class DriftWindow(_message.Message):
    __slots__ = ("n_rows", "span_s", "is_ready", "score")
    N_ROWS_FIELD_NUMBER: _ClassVar[int]
    SPAN_S_FIELD_NUMBER: _ClassVar[int]
    IS_READY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    n_rows: int
    span_s: float
    is_ready: bool
    score: float
    def __init__(self, n_rows: _Optional[int] = ..., span_s: _Optional[float] = ..., is_ready: _Optional[bool] = ..., score: _Optional[float] = ...) -> None: ...

class FeatureDrift(_message.Message):
    __slots__ = ("name", "type", "monitor", "weight", "score", "measure", "distance", "critical", "p_value", "is_significant", "psi", "n_window", "n_reference", "design_effect", "missing", "fallback", "unseen", "is_stuck", "quantiles", "categories", "note", "bin_edges", "bin_names", "reference_counts", "window_counts", "slow_counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    IS_SIGNIFICANT_FIELD_NUMBER: _ClassVar[int]
    PSI_FIELD_NUMBER: _ClassVar[int]
    N_WINDOW_FIELD_NUMBER: _ClassVar[int]
    N_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DESIGN_EFFECT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    IS_STUCK_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    BIN_EDGES_FIELD_NUMBER: _ClassVar[int]
    BIN_NAMES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SLOW_COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    monitor: str
    weight: float
    score: float
    measure: str
    distance: float
    critical: float
    p_value: float
    is_significant: bool
    psi: float
    n_window: int
    n_reference: float
    design_effect: float
    missing: RateDrift
    fallback: RateDrift
    unseen: RateDrift
    is_stuck: bool
    quantiles: _containers.RepeatedCompositeFieldContainer[QuantileChange]
    categories: _containers.RepeatedCompositeFieldContainer[CategoryChange]
    note: str
    bin_edges: _containers.RepeatedScalarFieldContainer[float]
    bin_names: _containers.RepeatedScalarFieldContainer[str]
    reference_counts: _containers.RepeatedScalarFieldContainer[float]
    window_counts: _containers.RepeatedScalarFieldContainer[float]
    slow_counts: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., monitor: _Optional[str] = ..., weight: _Optional[float] = ..., score: _Optional[float] = ..., measure: _Optional[str] = ..., distance: _Optional[float] = ..., critical: _Optional[float] = ..., p_value: _Optional[float] = ..., is_significant: _Optional[bool] = ..., psi: _Optional[float] = ..., n_window: _Optional[int] = ..., n_reference: _Optional[float] = ..., design_effect: _Optional[float] = ..., missing: _Optional[_Union[RateDrift, _Mapping]] = ..., fallback: _Optional[_Union[RateDrift, _Mapping]] = ..., unseen: _Optional[_Union[RateDrift, _Mapping]] = ..., is_stuck: _Optional[bool] = ..., quantiles: _Optional[_Iterable[_Union[QuantileChange, _Mapping]]] = ..., categories: _Optional[_Iterable[_Union[CategoryChange, _Mapping]]] = ..., note: _Optional[str] = ..., bin_edges: _Optional[_Iterable[float]] = ..., bin_names: _Optional[_Iterable[str]] = ..., reference_counts: _Optional[_Iterable[float]] = ..., window_counts: _Optional[_Iterable[float]] = ..., slow_counts: _Optional[_Iterable[float]] = ...) -> None: ...

class RateDrift(_message.Message):
    __slots__ = ("reference", "window", "p_value", "score")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    reference: float
    window: float
    p_value: float
    score: float
    def __init__(self, reference: _Optional[float] = ..., window: _Optional[float] = ..., p_value: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class QuantileChange(_message.Message):
    __slots__ = ("percent", "reference", "window")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    percent: float
    reference: float
    window: float
    def __init__(self, percent: _Optional[float] = ..., reference: _Optional[float] = ..., window: _Optional[float] = ...) -> None: ...

class CategoryChange(_message.Message):
    __slots__ = ("name", "reference", "window")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    reference: float
    window: float
    def __init__(self, name: _Optional[str] = ..., reference: _Optional[float] = ..., window: _Optional[float] = ...) -> None: ...

class GetEventsRequest(_message.Message):
    __slots__ = ("limit", "after_id", "kinds")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    limit: int
    after_id: int
    kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, limit: _Optional[int] = ..., after_id: _Optional[int] = ..., kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class GetEventsResponse(_message.Message):
    __slots__ = ("events", "last_id")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    last_id: int
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., last_id: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("id", "time_ms", "kind", "severity", "model", "version", "summary", "details", "delivery")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    id: int
    time_ms: int
    kind: str
    severity: str
    model: str
    version: str
    summary: str
    details: str
    delivery: str
    def __init__(self, id: _Optional[int] = ..., time_ms: _Optional[int] = ..., kind: _Optional[str] = ..., severity: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., summary: _Optional[str] = ..., details: _Optional[str] = ..., delivery: _Optional[str] = ...) -> None: ...
