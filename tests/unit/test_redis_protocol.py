"""The client's side of a Redis connection, fed with scripted bytes."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import StoreError
from fastpath.redis_options import resolve
from fastpath.redis_protocol import Conversation


def hiredis_format(*words: bytes) -> bytes:
    """Format a command with the C library itself."""
    library = ctypes.CDLL(ctypes.util.find_library("hiredis"))
    target = ctypes.c_void_p()
    sizes = (ctypes.c_size_t * len(words))(*map(len, words))
    n = library.redisFormatCommandArgv(
        ctypes.byref(target), len(words), (ctypes.c_char_p * len(words))(*words), sizes
    )
    assert n > 0
    try:
        return ctypes.string_at(target, n)
    finally:
        library.redisFreeCommand(target)


def ready(prefix: bytes = b"") -> Conversation:
    talk = Conversation(prefix)
    talk.begin()
    assert talk.output() == hiredis_format(b"PING")
    assert talk.feed(b"+PONG\r\n")
    assert talk.ready
    return talk


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


@settings(max_examples=100, derandomize=True)
@given(st.binary(max_size=128), st.binary(min_size=1, max_size=321))
def test_a_get_is_what_hiredis_formats(prefix: bytes, key: bytes) -> None:
    talk = ready(prefix)
    assert talk.ask(key) == 0
    assert talk.output() == hiredis_format(b"GET", prefix + key)


@pytest.mark.parametrize("n", [1, 9, 10, 99, 100, 321])
def test_lengths_of_one_to_three_digits(n: int) -> None:
    talk = ready()
    talk.ask(b"k" * n)
    assert talk.output() == hiredis_format(b"GET", b"k" * n)


RECORD = bytes(range(256)) * 16 + b"\r\n" * 8  # 4,112 bytes, the largest record
SCRIPT = bulk(RECORD) + bulk(None) + bulk(b"") + b"-WRONGTYPE Operation\r\n" + bulk(b"last")
ENDS = [
    (0, "value", RECORD),
    (1, "nil", None),
    (2, "value", b""),
    (3, "error", "wrong_type"),
    (4, "value", b"last"),
]


def test_replies_cut_at_every_byte() -> None:
    for cut in range(len(SCRIPT) + 1):
        talk = ready()
        for i in range(5):
            assert talk.ask(b"%d" % i) == i
        assert talk.feed(SCRIPT[:cut])
        assert talk.feed(SCRIPT[cut:])
        assert talk.take() == ENDS


def test_replies_byte_by_byte() -> None:
    talk = ready()
    for i in range(5):
        talk.ask(b"%d" % i)
    for i in range(len(SCRIPT)):
        assert talk.feed(SCRIPT[i : i + 1])
    assert talk.take() == ENDS
    assert talk.owed == 0


@settings(max_examples=150, derandomize=True)
@given(st.data())
def test_each_read_gets_its_own_reply_or_none(data: st.DataObject) -> None:
    """Any order of asking, forgetting, pieces of replies and lost connections."""
    talk = ready()
    stream = b""  # what the server has yet to send
    waiting: set[int] = set()
    n_asked = n_forgotten_before_reply = 0
    for _ in range(data.draw(st.integers(0, 40))):
        action = data.draw(st.sampled_from(["ask", "ask", "forget", "feed", "feed", "lose"]))
        if action == "ask":
            sequence = talk.ask(b"key")
            assert sequence == n_asked
            n_asked += 1
            waiting.add(sequence)
            stream += bulk(b"record of %d" % sequence)
        elif action == "forget" and n_asked:
            sequence = data.draw(st.integers(0, n_asked - 1))
            talk.forget(sequence)
            n_forgotten_before_reply += sequence in waiting
            waiting.discard(sequence)
        elif action == "feed":
            n = data.draw(st.integers(0, len(stream)))
            assert talk.feed(stream[:n])
            stream = stream[n:]
        elif action == "lose":
            talk.end()
            stream = b""
        for sequence, reply, value in talk.take():
            assert sequence in waiting, "answered twice, or after it was forgotten"
            waiting.remove(sequence)
            if reply == "value":
                assert value == b"record of %d" % sequence
            else:
                assert (reply, action) == ("lost", "lose")
        if action == "lose":
            assert not waiting
            talk.begin()
            talk.output()
            assert talk.feed(b"+PONG\r\n")
    assert talk.feed(stream)
    assert {s for s, _, _ in talk.take()} == waiting
    assert talk.n_late <= n_forgotten_before_reply


@pytest.mark.parametrize(
    "junk",
    [
        b":1\r\n",
        b"+OK\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*0\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b"$1\r\nabc\r\n$1\r\n",
        b">2\r\n+a\r\n+b\r\n",
        b"\x00",
    ],
)
def test_what_no_get_is_answered_with_ends_the_conversation(junk: bytes) -> None:
    talk = ready()
    talk.ask(b"a")
    talk.ask(b"b")
    assert not talk.feed(junk)
    assert talk.cause == "protocol"
    assert not talk.feed(bulk(b"x")), "nothing is looked at any more"
    assert not [reply for reply in talk.take() if reply[1] == "value" and reply[2] == b"x"]


def test_a_reply_that_nobody_asked_for_ends_the_conversation() -> None:
    talk = ready()
    assert not talk.feed(bulk(b"surprise"))
    assert talk.cause == "protocol"
    assert talk.take() == []


def test_a_reply_without_end_is_not_collected() -> None:
    talk = ready()
    talk.ask(b"large")
    talk.ask(b"next")
    assert talk.feed(b"$500000000\r\n" + bytes((1 << 20) - 100))
    assert not talk.feed(bytes(1 << 16))
    assert talk.cause == "too_large"
    assert talk.take() == [(0, "error", "too_large")]
    talk.end()
    assert talk.take() == [(1, "lost", None)]


def test_the_ring_is_bounded_and_forgotten_reads_keep_their_place() -> None:
    talk = ready()
    n = 0
    while talk.ask(b"k" * 20) >= 0:
        talk.forget(n)
        n += 1
        talk.output()
    assert n == talk.owed == 8192
    assert talk.feed(bulk(None))
    assert talk.take() == []
    assert talk.n_late == 1
    assert talk.ask(b"again") == 8192


def test_the_output_is_bounded() -> None:
    talk = ready()
    n = 0
    while talk.ask(b"k" * 321) >= 0:
        n += 1
    assert 0 < n < 8192
    assert len(talk.output()) <= 524288
    assert talk.ask(b"k" * 321) == n, "what was sent makes room"


ERRORS = [
    (b"-OOM command not allowed\r\n", "out_of_memory"),
    (b"-LOADING Redis is loading\r\n", "loading"),
    (b"-MASTERDOWN Link with MASTER is down\r\n", "loading"),
    (b"-NOAUTH Authentication required.\r\n", "no_auth"),
    (b"-NOPERM no permissions\r\n", "no_auth"),
    (b"-READONLY You can't write\r\n", "readonly"),
    (b"-ERR unknown command\r\n", "other"),
    (b"-\r\n", "other"),
]


@pytest.mark.parametrize(("line", "refusal"), ERRORS)
def test_errors_by_cause(line: bytes, refusal: str) -> None:
    talk = ready()
    talk.ask(b"k")
    assert talk.feed(line)
    assert talk.take() == [(0, "error", refusal)]
    assert talk.ready


def test_the_handshake_is_checked_step_by_step() -> None:
    talk = Conversation(username="me", password="secret", database=3)
    talk.begin()
    expected = hiredis_format(b"AUTH", b"me", b"secret")
    assert talk.output() == expected + hiredis_format(b"SELECT", b"3") + hiredis_format(b"PING")
    for line in (b"+OK\r\n", b"+OK\r\n"):
        assert talk.feed(line)
        assert not talk.ready
    assert talk.feed(b"+PONG\r\n")
    assert talk.ready


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", "auth"),
        (b"-ERR AUTH <password> called without any password configured\r\n", "auth"),
        (b"+OK\r\n-ERR DB index is out of range\r\n", "database"),
        (b"+OK\r\n-NOAUTH Authentication required.\r\n", "auth"),
        (b"+OK\r\n+OK\r\n-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"+OK\r\n+OK\r\n-ERR max number of clients reached\r\n", "refused"),
        (b"+PONG\r\n", "protocol"),
        (b"$2\r\nOK\r\n", "protocol"),
    ],
)
def test_a_refused_handshake_says_why(replies: bytes, cause: str) -> None:
    talk = Conversation(password="secret", database=1)
    talk.begin()
    assert not talk.feed(replies)
    assert talk.cause == cause
    assert not talk.ready
    if cause != "protocol":
        assert talk.words
        assert talk.words in replies.decode()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "localhost:",
        ":6379",
        "h:0",
        "h:70000",
        "h:6x",
        "unix:",
        "unix:relative",
        "::1:6379",
        "unix:/" + "x" * 107,
    ],
)
def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(StoreError, match="address"):
        resolve(address)


def test_addresses_are_resolved() -> None:
    assert resolve("127.0.0.1:6379").targets[0][1:] == ("127.0.0.1", 6379)
    assert resolve("[::1]:6379").targets[0][1:] == ("::1", 6379)
    assert resolve("unix:/run/redis.sock").targets[0][1] == "/run/redis.sock"
    with pytest.raises(StoreError, match=r"resolved"):
        resolve("no-such-host.invalid:6379")
