"""Histograms equal the `hdrhistogram` package's: layout, percentiles, and text both ways."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import HistogramError
from bench.hdr import Histogram

HIGHEST = 3_600_000_000_000
PERCENTILES = (0.0, 0.1, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0)

# Every magnitude, and the borders of buckets.
VALUES = st.one_of(
    st.integers(0, 4096),
    st.integers(0, 41).flatmap(lambda k: st.integers(max(0, 2**k - 3), min(2**k + 3, HIGHEST))),
    st.integers(0, HIGHEST),
)
COUNTED = st.lists(st.tuples(VALUES, st.integers(1, 2**40)), max_size=40)


def both(counted: list[tuple[int, int]]) -> tuple[Histogram, HdrHistogram]:
    ours, theirs = Histogram(), HdrHistogram(1, HIGHEST, 3)
    for value, n in counted:
        ours.record(value, n)
        theirs.record_value(value, n)
    return ours, theirs


@given(COUNTED)
@settings(max_examples=80, derandomize=True)
def test_it_says_what_the_package_says(counted: list[tuple[int, int]]) -> None:
    ours, theirs = both(counted)
    assert ours.count == theirs.get_total_count()
    assert ours.max == theirs.get_max_value()
    assert ours.min == (theirs.get_min_value() if counted else 0)
    assert {p: ours.percentile(p) for p in PERCENTILES if counted} == (
        theirs.get_percentile_to_value_dict(list(PERCENTILES)) if counted else {}
    )
    assert ours.mean() == pytest.approx(theirs.get_mean_value(), rel=1e-12)


@given(COUNTED)
@settings(max_examples=50, derandomize=True)
def test_text_is_read_both_ways(counted: list[tuple[int, int]]) -> None:
    ours, theirs = both(counted)
    assert ours.encode() == theirs.encode().decode()
    read = HdrHistogram.decode(ours.encode())
    assert read.get_value_at_percentile(50) == ours.percentile(50)
    assert read.get_total_count() == ours.count
    back = Histogram.decode(theirs.encode().decode())
    assert back.buckets() == ours.buckets()
    assert (back.count, back.max, back.min) == (ours.count, ours.max, ours.min)


@given(COUNTED, COUNTED)
@settings(max_examples=50, derandomize=True)
def test_merging_is_counting_everything(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    merged, other, whole = both(a)[0], both(b)[0], both(a + b)[0]
    merged.merge(other)
    assert merged.encode() == whole.encode()
    assert (merged.count, merged.min, merged.max) == (whole.count, whole.min, whole.max)


@given(VALUES)
@settings(max_examples=50, derandomize=True)
def test_three_digits_are_kept(value: int) -> None:
    histogram = Histogram()
    histogram.record(value)
    assert value <= histogram.percentile(50) <= value * 1.001 + 1


def test_values_outside_the_range_count_at_its_ends() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record(2**62)
    assert histogram.min == 0
    assert HIGHEST <= histogram.max <= HIGHEST * 1.001
    assert histogram.count == 2


def test_an_empty_one_is_all_zeros() -> None:
    empty = Histogram()
    assert (empty.count, empty.min, empty.max, empty.mean(), empty.percentile(99)) == (0,) * 5
    assert empty.buckets() == Histogram.decode(empty.encode()).buckets() == []


def test_counts_above_a_value() -> None:
    histogram = Histogram()
    for value in (10, 1000, 1_000_000, 5_000_000):
        histogram.record(value, 3)
    assert [histogram.count_above(v) for v in (0, 10, 999, 1000, 10**7)] == [12, 9, 9, 6, 0]


def deflated(header: bytes, words: bytes = b"") -> str:
    inner = zlib.compress(header + words)
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(inner)) + inner).decode()


def head(n_words: int, **changes: int) -> bytes:
    fields = {"cookie": 0x1C849313, "offset": 0, "digits": 3, "lowest": 1, "highest": HIGHEST}
    fields |= changes
    return struct.pack(
        ">IIIIQQd",
        *(fields["cookie"], n_words, fields["offset"], fields["digits"]),
        *(fields["lowest"], fields["highest"], 1.0),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged"),
        ("not base64!", "damaged"),
        (base64.b64encode(b"\x1c\x84\x93\x14\0\0\0\4abcd").decode(), "damaged"),
        (base64.b64encode(b"\0" * 8 + zlib.compress(head(0))).decode(), "V2"),
        (deflated(head(0, cookie=0x1C849301)), "V2"),
        (deflated(head(5), b"\2\2"), "lengths disagree"),
        (deflated(head(0, digits=2)), "2 digits"),
        (deflated(head(0, highest=1000)), "1 to 1000"),
        (deflated(head(1), b"\x80"), "do not fit"),
        # A run of zeros beyond the last count, and one that would wrap around.
        (deflated(head(4), b"\xff\xff\xff\x7f"), "do not fit"),
        (deflated(head(9), b"\xff" * 9), "do not fit"),
        (deflated(head(33793), b"\2" * 33793), "do not fit"),
        # A bomb: inflates to far more than any histogram.
        (deflated(head(0), bytes(50_000_000)), "lengths disagree"),
    ],
)
def test_damaged_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(HistogramError, match=said):
        Histogram.decode(text)


def test_a_count_is_positive() -> None:
    with pytest.raises(HistogramError, match="0 times"):
        Histogram().record(5, 0)
