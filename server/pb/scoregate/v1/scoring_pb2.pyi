from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READ_OUTCOME_NOT_READ: _ClassVar[ReadOutcome]
    READ_OUTCOME_HIT: _ClassVar[ReadOutcome]
    READ_OUTCOME_ABSENT: _ClassVar[ReadOutcome]
    READ_OUTCOME_STALE: _ClassVar[ReadOutcome]
    READ_OUTCOME_NO_ENTITY: _ClassVar[ReadOutcome]
    READ_OUTCOME_FOREIGN: _ClassVar[ReadOutcome]
    READ_OUTCOME_MALFORMED: _ClassVar[ReadOutcome]
    READ_OUTCOME_TIMEOUT: _ClassVar[ReadOutcome]
    READ_OUTCOME_UNREACHABLE: _ClassVar[ReadOutcome]
    READ_OUTCOME_REFUSED: _ClassVar[ReadOutcome]
    READ_OUTCOME_BREAKER: _ClassVar[ReadOutcome]
    READ_OUTCOME_BUSY: _ClassVar[ReadOutcome]
    READ_OUTCOME_FAILED: _ClassVar[ReadOutcome]

class ScoreKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_KIND_UNSPECIFIED: _ClassVar[ScoreKind]
    SCORE_KIND_PROBABILITY: _ClassVar[ScoreKind]
    SCORE_KIND_VALUE: _ClassVar[ScoreKind]

class FeatureSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_SOURCE_UNSPECIFIED: _ClassVar[FeatureSource]
    FEATURE_SOURCE_REQUEST: _ClassVar[FeatureSource]
    FEATURE_SOURCE_ONLINE: _ClassVar[FeatureSource]
    FEATURE_SOURCE_BATCH: _ClassVar[FeatureSource]
    FEATURE_SOURCE_DEFAULT: _ClassVar[FeatureSource]

class FeatureType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_TYPE_UNSPECIFIED: _ClassVar[FeatureType]
    FEATURE_TYPE_NUMERIC: _ClassVar[FeatureType]
    FEATURE_TYPE_BOOLEAN: _ClassVar[FeatureType]
    FEATURE_TYPE_CATEGORICAL: _ClassVar[FeatureType]
READ_OUTCOME_NOT_READ: ReadOutcome
READ_OUTCOME_HIT: ReadOutcome
READ_OUTCOME_ABSENT: ReadOutcome
READ_OUTCOME_STALE: ReadOutcome
READ_OUTCOME_NO_ENTITY: ReadOutcome
READ_OUTCOME_FOREIGN: ReadOutcome
READ_OUTCOME_MALFORMED: ReadOutcome
READ_OUTCOME_TIMEOUT: ReadOutcome
READ_OUTCOME_UNREACHABLE: ReadOutcome
READ_OUTCOME_REFUSED: ReadOutcome
READ_OUTCOME_BREAKER: ReadOutcome
READ_OUTCOME_BUSY: ReadOutcome
READ_OUTCOME_FAILED: ReadOutcome
SCORE_KIND_UNSPECIFIED: ScoreKind
SCORE_KIND_PROBABILITY: ScoreKind
SCORE_KIND_VALUE: ScoreKind
FEATURE_SOURCE_UNSPECIFIED: FeatureSource
FEATURE_SOURCE_REQUEST: FeatureSource
FEATURE_SOURCE_ONLINE: FeatureSource
FEATURE_SOURCE_BATCH: FeatureSource
FEATURE_SOURCE_DEFAULT: FeatureSource
FEATURE_TYPE_UNSPECIFIED: FeatureType
FEATURE_TYPE_NUMERIC: FeatureType
FEATURE_TYPE_BOOLEAN: FeatureType
FEATURE_TYPE_CATEGORICAL: FeatureType

class ScoreRequest(_message.Message):
    __slots__ = ("request_id", "event_time_ms", "entities", "routing_key", "model", "options", "dense", "named")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    event_time_ms: int
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    routing_key: str
    model: str
    options: ScoreOptions
    dense: DenseFeatures
    named: NamedFeatures
    def __init__(self, request_id: _Optional[str] = ..., event_time_ms: _Optional[int] = ..., entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ..., routing_key: _Optional[str] = ..., model: _Optional[str] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ..., dense: _Optional[_Union[DenseFeatures, _Mapping]] = ..., named: _Optional[_Union[NamedFeatures, _Mapping]] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("role", "type", "id")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    role: str
    type: str
    id: str
    def __init__(self, role: _Optional[str] = ..., type: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class DenseFeatures(_message.Message):
    __slots__ = ("layout", "values")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    layout: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, layout: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class NamedFeatures(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.MessageMap[str, FeatureValue]
    def __init__(self, values: _Optional[_Mapping[str, FeatureValue]] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("number", "flag", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    flag: bool
    text: str
    def __init__(self, number: _Optional[float] = ..., flag: _Optional[bool] = ..., text: _Optional[str] = ...) -> None: ...

class ScoreOptions(_message.Message):
    __slots__ = ("provenance", "timings", "reasons")
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    provenance: bool
    timings: bool
    reasons: bool
    def __init__(self, provenance: _Optional[bool] = ..., timings: _Optional[bool] = ..., reasons: _Optional[bool] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("request_id", "raw_score", "score", "decision", "threshold", "bucket", "unsticky", "degraded", "cached", "explored", "decision_propensity", "source_counts", "model", "version", "sha256", "arm", "plan_generation", "score_kind", "provenance", "timings", "group_reads")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    UNSTICKY_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    DECISION_PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    PLAN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    GROUP_READS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    raw_score: float
    score: float
    decision: str
    threshold: float
    bucket: int
    unsticky: bool
    degraded: bool
    cached: bool
    explored: bool
    decision_propensity: float
    source_counts: SourceCounts
    model: str
    version: str
    sha256: bytes
    arm: str
    plan_generation: int
    score_kind: ScoreKind
    provenance: _containers.RepeatedScalarFieldContainer[FeatureSource]
    timings: StageTimings
    group_reads: _containers.RepeatedCompositeFieldContainer[GroupRead]
    def __init__(self, request_id: _Optional[str] = ..., raw_score: _Optional[float] = ..., score: _Optional[float] = ..., decision: _Optional[str] = ..., threshold: _Optional[float] = ..., bucket: _Optional[int] = ..., unsticky: _Optional[bool] = ..., degraded: _Optional[bool] = ..., cached: _Optional[bool] = ..., explored: _Optional[bool] = ..., decision_propensity: _Optional[float] = ..., source_counts: _Optional[_Union[SourceCounts, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., arm: _Optional[str] = ..., plan_generation: _Optional[int] = ..., score_kind: _Optional[_Union[ScoreKind, str]] = ..., provenance: _Optional[_Iterable[_Union[FeatureSource, str]]] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., group_reads: _Optional[_Iterable[_Union[GroupRead, _Mapping]]] = ...) -> None: ...

class GroupRead(_message.Message):
    __slots__ = ("group", "online", "batch", "online_age_ms", "batch_age_ms")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ONLINE_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    group: str
    online: ReadOutcome
    batch: ReadOutcome
    online_age_ms: int
    batch_age_ms: int
    def __init__(self, group: _Optional[str] = ..., online: _Optional[_Union[ReadOutcome, str]] = ..., batch: _Optional[_Union[ReadOutcome, str]] = ..., online_age_ms: _Optional[int] = ..., batch_age_ms: _Optional[int] = ...) -> None: ...

class SourceCounts(_message.Message):
    __slots__ = ("request", "online", "batch", "default_value")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    request: int
    online: int
    batch: int
    default_value: int
    def __init__(self, request: _Optional[int] = ..., online: _Optional[int] = ..., batch: _Optional[int] = ..., default_value: _Optional[int] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("parse_ns", "features_ns", "score_ns", "total_ns")
    PARSE_NS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_NS_FIELD_NUMBER: _ClassVar[int]
    SCORE_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    parse_ns: int
    features_ns: int
    score_ns: int
    total_ns: int
    def __init__(self, parse_ns: _Optional[int] = ..., features_ns: _Optional[int] = ..., score_ns: _Optional[int] = ..., total_ns: _Optional[int] = ...) -> None: ...

class ScoreBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ScoreRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ScoreRequest, _Mapping]]] = ...) -> None: ...

class ScoreBatchResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoreBatchItem]
    def __init__(self, items: _Optional[_Iterable[_Union[ScoreBatchItem, _Mapping]]] = ...) -> None: ...

class ScoreBatchItem(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: ScoreResponse
    error: RowError
    def __init__(self, response: _Optional[_Union[ScoreResponse, _Mapping]] = ..., error: _Optional[_Union[RowError, _Mapping]] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("request_id", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("response", "decided_time_ms")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    DECIDED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    response: ScoreResponse
    decided_time_ms: int
    def __init__(self, response: _Optional[_Union[ScoreResponse, _Mapping]] = ..., decided_time_ms: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "is_default", "plan_generation", "arms", "layouts", "routing_entity")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    PLAN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_ENTITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    is_default: bool
    plan_generation: int
    arms: _containers.RepeatedCompositeFieldContainer[ArmDescription]
    layouts: _containers.RepeatedCompositeFieldContainer[Layout]
    routing_entity: str
    def __init__(self, model: _Optional[str] = ..., is_default: _Optional[bool] = ..., plan_generation: _Optional[int] = ..., arms: _Optional[_Iterable[_Union[ArmDescription, _Mapping]]] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., routing_entity: _Optional[str] = ...) -> None: ...

class ArmDescription(_message.Message):
    __slots__ = ("arm", "version", "sha256", "weight_basis_points", "layout", "score_kind", "features", "thresholds", "default_decision", "engine", "groups")
    ARM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BASIS_POINTS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    arm: str
    version: str
    sha256: bytes
    weight_basis_points: int
    layout: int
    score_kind: ScoreKind
    features: _containers.RepeatedCompositeFieldContainer[FeatureDescription]
    thresholds: _containers.RepeatedCompositeFieldContainer[Threshold]
    default_decision: str
    engine: str
    groups: _containers.RepeatedCompositeFieldContainer[GroupDescription]
    def __init__(self, arm: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., weight_basis_points: _Optional[int] = ..., layout: _Optional[int] = ..., score_kind: _Optional[_Union[ScoreKind, str]] = ..., features: _Optional[_Iterable[_Union[FeatureDescription, _Mapping]]] = ..., thresholds: _Optional[_Iterable[_Union[Threshold, _Mapping]]] = ..., default_decision: _Optional[str] = ..., engine: _Optional[str] = ..., groups: _Optional[_Iterable[_Union[GroupDescription, _Mapping]]] = ...) -> None: ...

class GroupDescription(_message.Message):
    __slots__ = ("name", "entity", "role", "fingerprint", "columns", "ttl_s", "batch_max_age_s", "read_budget_us", "online", "batch")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_MAX_AGE_S_FIELD_NUMBER: _ClassVar[int]
    READ_BUDGET_US_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    entity: str
    role: str
    fingerprint: int
    columns: _containers.RepeatedCompositeFieldContainer[LayoutColumn]
    ttl_s: float
    batch_max_age_s: float
    read_budget_us: int
    online: bool
    batch: bool
    def __init__(self, name: _Optional[str] = ..., entity: _Optional[str] = ..., role: _Optional[str] = ..., fingerprint: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[LayoutColumn, _Mapping]]] = ..., ttl_s: _Optional[float] = ..., batch_max_age_s: _Optional[float] = ..., read_budget_us: _Optional[int] = ..., online: _Optional[bool] = ..., batch: _Optional[bool] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("fingerprint", "columns")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    fingerprint: int
    columns: _containers.RepeatedCompositeFieldContainer[LayoutColumn]
    def __init__(self, fingerprint: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[LayoutColumn, _Mapping]]] = ...) -> None: ...

class LayoutColumn(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: FeatureType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[FeatureType, str]] = ...) -> None: ...

class FeatureDescription(_message.Message):
    __slots__ = ("name", "type", "required", "default_value", "minimum", "maximum", "vocabulary", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: FeatureType
    required: bool
    default_value: float
    minimum: float
    maximum: float
    vocabulary: _containers.RepeatedScalarFieldContainer[str]
    source: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[FeatureType, str]] = ..., required: _Optional[bool] = ..., default_value: _Optional[float] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., vocabulary: _Optional[_Iterable[str]] = ..., source: _Optional[str] = ...) -> None: ...

class Threshold(_message.Message):
    __slots__ = ("name", "raw_score", "score")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    raw_score: float
    score: float
    def __init__(self, name: _Optional[str] = ..., raw_score: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...
