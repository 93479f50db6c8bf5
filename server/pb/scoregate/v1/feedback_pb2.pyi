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
    __slots__ = ("request_id", "model", "label", "observed_time_ms", "amount")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    label: Label
    observed_time_ms: int
    amount: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., label: _Optional[_Union[Label, str]] = ..., observed_time_ms: _Optional[int] = ..., amount: _Optional[float] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("accepted", "unmatched", "duplicates")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    unmatched: int
    duplicates: int
    def __init__(self, accepted: _Optional[int] = ..., unmatched: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...
