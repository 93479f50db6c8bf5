"""Recorded messages in one file: what a service really received, to be sent again.

The format, all integers little-endian:

    8 bytes   "SGRECRD1"
    u32       number of messages
    per message:
      u16, bytes   method ("/package.Service/Method", ASCII)
      u32, bytes   serialized message, without gRPC's prefix
      u8           what is expected: 0 nothing, 1 the whole answer, 2 a raw score
      u32, bytes   expected answer, or a float32 of 4 bytes, or nothing (length 0)
    u32       CRC-32 of everything before it

`write` makes such a file, aside and renamed; `read` checks all of it before it returns a message.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from bench.errors import SourceError
from bench.message import Message

MAGIC = b"SGRECRD1"
NOTHING, ANSWER, RAW_SCORE = 0, 1, 2


def write(path: Path, messages: Sequence[Message]) -> None:
    """Write a recorded file.

    Raises
    ------
    SourceError
        A method is not ASCII or too long, there are no messages, or the file cannot be written.
    """
    if not messages:
        raise SourceError(f"{path}: no messages to record")
    parts = [MAGIC, struct.pack("<I", len(messages))]
    for i, message in enumerate(messages):
        method = message.method.encode("ascii", "replace")
        if len(method) > 0xFFFF or not message.method.isascii():
            raise SourceError(f"{path}: message {i}: {message.method[:80]!r} is no method's path")
        kind, expected = NOTHING, b""
        if message.expected is not None:
            kind, expected = ANSWER, message.expected
        elif message.expected_raw is not None:
            kind, expected = RAW_SCORE, struct.pack("<f", message.expected_raw)
        parts += [struct.pack("<H", len(method)), method]
        parts += [struct.pack("<I", len(message.body)), message.body]
        parts += [struct.pack("<BI", kind, len(expected)), expected]
    body = b"".join(parts)
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            file.write(body)
            file.write(struct.pack("<I", zlib.crc32(body)))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from None


class _Reader:
    """Takes pieces off a recording and says where it ends too soon."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, len(MAGIC)

    def take(self, n: int, what: str) -> bytes:
        if self.at + n > len(self.data):
            raise SourceError(
                f"{self.path}: ends at byte {len(self.data)}, within {what} that begins at byte "
                f"{self.at}"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form: str, what: str) -> int:
        return int(struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))[0])


def read(path: Path) -> list[Message]:
    """Read and check a recorded file.

    Raises
    ------
    SourceError
        It cannot be read, is no recording, is cut, or is damaged.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    if not whole.startswith(MAGIC):
        raise SourceError(
            f"{path}: not a recording: it does not begin with {MAGIC.decode()}; "
            "bench.recording.write makes one, --message takes a bare message"
        )
    reader = _Reader(path, whole[:-4])
    n_messages = reader.number("I", "the number of messages")
    messages = []
    for i in range(n_messages):
        what = f"message {i} of {n_messages}"
        method = reader.take(reader.number("H", what), what)
        if not method.isascii():
            raise SourceError(f"{path}: {what}: its method is not ASCII")
        body = reader.take(reader.number("I", what), what)
        kind = reader.number("B", what)
        expected = reader.take(reader.number("I", what), what)
        if kind not in (NOTHING, ANSWER, RAW_SCORE) or (kind == RAW_SCORE and len(expected) != 4):
            raise SourceError(f"{path}: {what}: an expectation of unknown kind {kind}")
        messages.append(
            Message(
                method.decode(),
                body,
                expected if kind == ANSWER else None,
                struct.unpack("<f", expected)[0] if kind == RAW_SCORE else None,
            )
        )
    if reader.at != len(reader.data):
        raise SourceError(
            f"{path}: {len(reader.data) - reader.at} bytes too many after message {n_messages - 1}"
        )
    if struct.unpack("<I", whole[-4:])[0] != zlib.crc32(reader.data):
        raise SourceError(f"{path}: damaged: its checksum differs; record it again")
    if not messages:
        raise SourceError(f"{path}: holds no messages")
    return messages
