from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Label(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_UNSPECIFIED: _ClassVar[Label]
    LABEL_NEGATIVE: _ClassVar[Label]
    LABEL_POSITIVE: _ClassVar[Label]
    LABEL_RETRACTED: _ClassVar[Label]
LABEL_UNSPECIFIED: Label
LABEL_NEGATIVE: Label
LABEL_POSITIVE: Label
LABEL_RETRACTED: Label

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("request_id", "model", "label", "observed_time_ms", "amount", "source")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    label: Label
    observed_time_ms: int
    amount: float
    source: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., label: _Optional[_Union[Label, str]] = ..., observed_time_ms: _Optional[int] = ..., amount: _Optional[float] = ..., source: _Optional[str] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("accepted", "unmatched", "duplicates", "revised", "rejected", "first_rejected", "expired")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REVISED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    FIRST_REJECTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    unmatched: int
    duplicates: int
    revised: int
    rejected: int
    first_rejected: str
    expired: int
    def __init__(self, accepted: _Optional[int] = ..., unmatched: _Optional[int] = ..., duplicates: _Optional[int] = ..., revised: _Optional[int] = ..., rejected: _Optional[int] = ..., first_rejected: _Optional[str] = ..., expired: _Optional[int] = ...) -> None: ...

class GetQualityRequest(_message.Message):
    __slots__ = ("model", "version", "curves")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    curves: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., curves: _Optional[bool] = ...) -> None: ...

class GetQualityResponse(_message.Message):
    __slots__ = ("reports", "now_ms")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[QualityReport]
    now_ms: int
    def __init__(self, reports: _Optional[_Iterable[_Union[QualityReport, _Mapping]]] = ..., now_ms: _Optional[int] = ...) -> None: ...

class QualityReport(_message.Message):
    __slots__ = ("model", "version", "arm", "cohort", "from_time_ms", "to_time_ms", "n_decisions", "n_labels", "n_positive", "n_effective", "metrics", "note", "bins", "evaluated_time_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    N_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    N_LABELS_FIELD_NUMBER: _ClassVar[int]
    N_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    N_EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    arm: str
    cohort: str
    from_time_ms: int
    to_time_ms: int
    n_decisions: int
    n_labels: int
    n_positive: int
    n_effective: float
    metrics: _containers.RepeatedCompositeFieldContainer[QualityMetric]
    note: str
    bins: _containers.RepeatedCompositeFieldContainer[ScoreBin]
    evaluated_time_ms: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., arm: _Optional[str] = ..., cohort: _Optional[str] = ..., from_time_ms: _Optional[int] = ..., to_time_ms: _Optional[int] = ..., n_decisions: _Optional[int] = ..., n_labels: _Optional[int] = ..., n_positive: _Optional[int] = ..., n_effective: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[QualityMetric, _Mapping]]] = ..., note: _Optional[str] = ..., bins: _Optional[_Iterable[_Union[ScoreBin, _Mapping]]] = ..., evaluated_time_ms: _Optional[int] = ...) -> None: ...

class QualityMetric(_message.Message):
    __slots__ = ("name", "threshold", "value", "low", "high", "interval")
    NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    threshold: str
    value: float
    low: float
    high: float
    interval: str
    def __init__(self, name: _Optional[str] = ..., threshold: _Optional[str] = ..., value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., interval: _Optional[str] = ...) -> None: ...

class ScoreBin(_message.Message):
    __slots__ = ("raw_low", "n_negative", "n_positive", "n_unknown", "mean_score", "positive_amount")
    RAW_LOW_FIELD_NUMBER: _ClassVar[int]
    N_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    N_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    N_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MEAN_SCORE_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    raw_low: float
    n_negative: float
    n_positive: float
    n_unknown: float
    mean_score: float
    positive_amount: float
    def __init__(self, raw_low: _Optional[float] = ..., n_negative: _Optional[float] = ..., n_positive: _Optional[float] = ..., n_unknown: _Optional[float] = ..., mean_score: _Optional[float] = ..., positive_amount: _Optional[float] = ...) -> None: ...
