"""`decode_request` against the official protobuf runtime, case by case and as a law."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import RequestError
from fastpath.wire import decode
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.requests import (
    assert_agrees,
    length_delimited,
    packed,
    random_request,
    reference,
)

DENSE, NAMED, ENTRY, VALUE = 0x3A, 0x42, 0x0A, 0x12
LAYOUT = b"\x09" + bytes(range(8))
NUMBER = b"\x09" + struct.pack("<d", 2.5)


def named(*entries: bytes) -> bytes:
    """Return field `named` with these map entries."""
    return length_delimited(NAMED, b"".join(length_delimited(ENTRY, entry) for entry in entries))


def entry(key: bytes, value: bytes) -> bytes:
    """Return a map entry with both its fields."""
    return length_delimited(0x0A, key) + length_delimited(VALUE, value)


def groups(depth: int, field: bytes = b"\xa3\x06") -> bytes:
    """Return groups of field 100 nested this deep."""
    return field * depth + b"\xa4\x06" * depth


ACCEPTED = {
    "empty": b"",
    "string twice": b"\x0a\x01a\x0a\x01b",
    "string emptied": b"\x0a\x01a\x0a\x00",
    "descending order": b"\x2a\x01m\x10\x05\x0a\x01a",
    "entities apart": b"\x1a\x03\x0a\x01a\x10\x01\x1a\x03\x12\x01b",
    "empty entity": b"\x1a\x00",
    "options merged": b"\x32\x02\x08\x01\x32\x02\x10\x01",
    "option withdrawn": b"\x32\x02\x08\x01\x32\x02\x08\x00",
    "bool of many bits": b"\x32\x07\x08\x80\x80\x80\x80\x80\x01",
    "bool of dropped bits": b"\x32\x0b\x08" + b"\x80" * 9 + b"\x02",
    "dense empty": b"\x3a\x00",
    "dense merged": length_delimited(DENSE, LAYOUT + packed(1, 2))
    + length_delimited(DENSE, packed(3)),
    "values unpacked": length_delimited(DENSE, b"\x15\0\0\x80\x3f" * 3),
    "values mixed": length_delimited(DENSE, packed(1) + b"\x15\0\0\0\x40" + LAYOUT + packed(3, 4)),
    "values 2000": length_delimited(DENSE, packed(*range(2000))),
    "values 1000 and 1000": length_delimited(DENSE, packed(*range(1000))) * 2,
    "dense then named": length_delimited(DENSE, LAYOUT + packed(1)) + named(entry(b"a", NUMBER)),
    "named then dense": named(entry(b"a", NUMBER)) + length_delimited(DENSE, packed(1)),
    "dense, named, dense": length_delimited(DENSE, LAYOUT + packed(1))
    + named()
    + length_delimited(DENSE, packed(2)),
    "named, dense, named": named(entry(b"a", NUMBER)) + b"\x3a\x00" + named(entry(b"b", b"")),
    "named merged": named(entry(b"a", NUMBER)) + named(entry(b"b", NUMBER), entry(b"a", b"")),
    "key twice": named(entry(b"a", NUMBER), entry(b"b", b""), entry(b"a", b"\x10\x01")),
    "entry empty": named(b""),
    "entry without key": named(length_delimited(VALUE, NUMBER)),
    "entry without value": named(length_delimited(0x0A, b"a")),
    "entry reversed": named(length_delimited(VALUE, NUMBER) + length_delimited(0x0A, b"a")),
    "entry with key twice": named(b"\x0a\x01a" + entry(b"b", NUMBER)),
    "entry with value twice": named(entry(b"a", NUMBER) + length_delimited(VALUE, b"\x1a\x01z")),
    "entry with unknown field": named(entry(b"a", NUMBER) + b"\x18\x01", entry(b"b", NUMBER)),
    "entry with numeric key": named(b"\x08\x01" + length_delimited(VALUE, NUMBER)),
    "value with unknown field": named(entry(b"a", NUMBER + b"\x28\x01")),
    "kind: last wins": named(entry(b"a", NUMBER + b"\x1a\x01z\x10\x00")),
    "kind: number after text": named(entry(b"a", b"\x1a\x01z" + NUMBER)),
    "wrong wire type: string": b"\x08\x05\x0a\x01a",
    "wrong wire type: int64": b"\x12\x01a\x10\x07",
    "wrong wire type: message": b"\x38\x01",
    "wrong wire type: values": length_delimited(DENSE, b"\x10\x05" + packed(1)),
    "wrong wire type: group": b"\x0b\x0c",
    "unknown fields": b"\xa0\x06\x01\xa1\x0612345678\xa2\x06\x02ab\xa5\x061234\x10\x07",
    "unknown group": b"\xa3\x06\x08\x01\xab\x06\xac\x06\xa4\x06\x10\x07",
    "field 0 in a group": b"\x0b\x00\x01\x03\x04\x0c",
    "end of group, long tag": b"\x0b\x8c\x00",
    "largest field number": b"\xf8\xff\xff\xff\x0f\x01",
    "int64 negative": b"\x10" + b"\xff" * 9 + b"\x01",
    "int64 overlong": b"\x10\x85\x80\x80\x00",
    "int64 truncated": b"\x10" + b"\xff" * 9 + b"\x7f",
    "tag overlong": b"\x90\x80\x80\x80\x00\x05",
    "length overlong": b"\x0a\x81\x80\x80\x80\x00a",
    "groups 100 deep": groups(100),
    "groups 99 deep in options": length_delimited(0x32, groups(99)),
    "groups 98 deep in an entry": named(groups(98)),
    "groups 97 deep in a value": named(entry(b"a", groups(97))),
    "UTF-8 limits": length_delimited(
        0x0A, "\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode()
    ),
}

REFUSED = {
    "field 0": b"\x00\x01",
    "field 0 in a message": b"\x32\x02\x00\x01",
    "wire type 6": b"\x0e",
    "wire type 7 in a group": b"\x0b\x0f\x0c",
    "end of no group": b"\x0c",
    "end of another group": b"\xa3\x06\xac\x06",
    "group without end": b"\xa3\x06\x08\x01",
    "group without end in a message": b"\x32\x02\xa3\x06\xa4\x06",
    "end of group in a message": b"\xa3\x06\x32\x02\xa4\x06",
    "tag over 32 bits": b"\x90\x80\x80\x80\x10\x05",
    "tag of six bytes": b"\x90\x80\x80\x80\x80\x00\x05",
    "tag only": b"\x0a",
    "varint of eleven bytes": b"\x10" + b"\xff" * 10 + b"\x00",
    "varint cut": b"\x10\x80",
    "length cut": b"\x0a\x80",
    "length of six bytes": b"\x0a\x81\x80\x80\x80\x80\x00a",
    "length past the end": b"\x0a\x02a",
    "length of 4 GiB": b"\x0a\xff\xff\xff\xff\x0fa",
    "length past its message": b"\x32\x02\x2a\x05abcde",
    "fixed64 cut": length_delimited(DENSE, b"\x09abc"),
    "fixed32 cut": length_delimited(DENSE, b"\x15abc"),
    "double cut": named(entry(b"a", b"\x09abcdefg")),
    "packed values, 3 bytes": length_delimited(DENSE, b"\x12\x03abc"),
    "groups 101 deep": groups(101),
    "groups 100 deep in options": length_delimited(0x32, groups(100)),
    "groups 99 deep in an entry": named(groups(99)),
    "groups 98 deep in a value": named(entry(b"a", groups(98))),
}

NOT_UTF8 = [
    b"\x80", b"\xff", b"a\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
    b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xc3", b"\xe2\x82",
    b"\xf0\x9f\x92", b"abcdefgh\xe2(\xa1", b"\xc3\xa9abcdefgh\xc3",
]  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts_what_the_official_runtime_accepts(name: str) -> None:
    assert assert_agrees(ACCEPTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_the_official_runtime_refuses(name: str) -> None:
    assert not assert_agrees(REFUSED[name])


@pytest.mark.parametrize("text", NOT_UTF8)
def test_strings_are_utf8_wherever_they_stand(text: bytes) -> None:
    places = {
        "request_id": length_delimited(0x0A, text),
        "routing_key": length_delimited(0x22, text),
        "model": length_delimited(0x2A, text),
        "Entity.role": length_delimited(0x1A, length_delimited(0x0A, text)),
        "Entity.type": length_delimited(0x1A, length_delimited(0x12, text)),
        "Entity.id": length_delimited(0x1A, length_delimited(0x1A, text)),
        "a key of": named(entry(text, NUMBER)),
        "FeatureValue.text": named(entry(b"a", length_delimited(0x1A, text) + NUMBER)),
    }
    for place, data in places.items():
        assert not assert_agrees(data)
        with pytest.raises(RequestError, match=f"{place}.* is not valid UTF-8"):
            decode(data)


@pytest.mark.parametrize("size", range(1, 26))
def test_no_byte_of_a_text_is_overlooked(size: int) -> None:
    for at in range(size):
        text = bytearray(b"a" * size)
        text[at] = 0xFF
        assert not assert_agrees(length_delimited(0x0A, bytes(text)))


@given(st.text(max_size=40))
def test_every_text_passes(text: str) -> None:
    message = pb.ScoreRequest(model=text)
    assert decode(message.SerializeToString())["model"] == text


@given(st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_messages_and_their_concatenation(rng: random.Random) -> None:
    first, second = random_request(rng), random_request(rng)
    assert_agrees(first.SerializeToString())
    # Concatenated messages merge: one of protobuf's own laws.
    both = first.SerializeToString() + second.SerializeToString()
    assert_agrees(both)


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_random_bytes(data: bytes) -> None:
    assert_agrees(data)
    assert_agrees(length_delimited(DENSE, data))
    assert_agrees(named(data))
    assert_agrees(named(entry(b"a", data)))


def test_every_truncation_of_a_full_message() -> None:
    message = pb.ScoreRequest(request_id="r-1", event_time_ms=1_700_000_000_000, model="fraud")
    message.entities.add(role="payer", type="customer", id="c-9")
    message.options.provenance = True
    for name, text in (("country", "BE"), ("channel", "web")):
        message.named.values[name].text = text
    data = message.SerializeToString()
    accepted = [assert_agrees(data[:size]) for size in range(len(data) + 1)]
    assert 2 < sum(accepted) < len(data)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("request_id", "é" * 65, "request_id has 130 bytes, at most 128"),
        ("routing_key", "k" * 1025, "routing_key has 1025 bytes, at most 1024"),
    ],
)
def test_our_limits_on_strings(field: str, value: str, text: str) -> None:
    message = pb.ScoreRequest()
    setattr(message, field, value)
    with pytest.raises(RequestError, match=text):
        decode(message.SerializeToString())
    setattr(message, field, value[:-1])
    assert decode(message.SerializeToString())["model"] == ""


def test_our_limit_on_entities() -> None:
    message = pb.ScoreRequest(entities=[pb.Entity(id=str(i)) for i in range(16)])
    assert len(decode(message.SerializeToString())["entities"]) == 16
    message.entities.add(id="16")
    with pytest.raises(RequestError, match="entities holds more than 16"):
        decode(message.SerializeToString())


def test_our_limit_on_named_features() -> None:
    message = pb.ScoreRequest()
    for i in range(1024):
        message.named.values[f"f{i}"].number = i
    data = message.SerializeToString()
    assert decode(data)["named"] == reference(message)["named"]
    # The same names again are no more names; another one is too many, unless it is withdrawn.
    assert decode(data + data)["named"] == reference(message)["named"]
    over = data + named(entry(b"one more", NUMBER))
    with pytest.raises(RequestError, match="named holds more than 1024"):
        decode(over)
    assert decode(over + b"\x3a\x00")["form"] == "dense"


def test_a_limit_holds_for_the_last_value_only() -> None:
    assert_agrees(length_delimited(0x0A, b"r" * 500) + b"\x0a\x01a")


def test_the_error_says_where() -> None:
    with pytest.raises(RequestError, match="field of DenseFeatures at byte 6 is corrupt"):
        decode(b"\x10\x05\x0a\x00\x3a\x05\x12\x03abc")
