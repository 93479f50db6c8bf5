"""High dynamic range histograms of nanoseconds: every value to three digits, in 270 KB.

Rules: the layout, the percentiles and the V2 compressed base64 text are those of the HdrHistogram
family (Gil Tene; ports to Java, C, Go, Python), so that anyone's tools read our files. Range: 1 ns
to one hour; what lies above counts as one hour.

How it works: counts lie in half buckets of 1,024. Up to 2,047 every integer has a count of its
own; each doubling above halves the resolution. The encoded text is zlib over a header of 40 bytes
and the counts as ZigZag LEB128 words of at most 9 bytes, in which a negative word is a run of
zeros.

What it does not do: it does not lock. One thread records; others read after it has ended.
"""

import base64
import struct
import zlib

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from bench.errors import HistogramError

HIGHEST_NS = 3_600_000_000_000
DIGITS = 3
COOKIE = 0x1C849303 | 0x10            # the counts
COMPRESSED_COOKIE = 0x1C849304 | 0x10  # the deflated whole
HEADER = struct.Struct(">IIIIQQd")
OUTER = struct.Struct(">II")
# A damaged or hostile text must not inflate without end: header, and 9 bytes for every count.
MOST_BYTES = 40 + 9 * N_COUNTS


cdef int64_t lowest_of(int64_t index) noexcept nogil:
    # Smallest value that is counted at an index.
    cdef int64_t bucket = (index // HALF_BUCKET) - 1
    if bucket < 0:
        return index
    return (index - bucket * HALF_BUCKET) << bucket


cdef int64_t highest_of(int64_t index) noexcept nogil:
    cdef int64_t bucket = (index // HALF_BUCKET) - 1
    return lowest_of(index) + (1 if bucket < 0 else (<int64_t> 1 << bucket)) - 1


cdef Py_ssize_t put_word(uint8_t* out, int64_t value) noexcept nogil:
    # ZigZag LEB128, at most 9 bytes: the ninth holds 8 bits. Returns how many were written.
    cdef uint64_t word = (<uint64_t> value << 1) ^ <uint64_t> (value >> 63)
    cdef Py_ssize_t n = 0
    while word > 127 and n < 8:
        out[n] = <uint8_t> (word | 128)
        word >>= 7
        n += 1
    out[n] = <uint8_t> word
    return n + 1


cdef Py_ssize_t take_word(const uint8_t* data, Py_ssize_t n_data, int64_t* value) noexcept nogil:
    # Returns how many bytes were read; 0 when the text ends within a word.
    cdef uint64_t word = 0
    cdef Py_ssize_t n = 0
    cdef uint8_t byte
    while n < n_data:
        byte = data[n]
        if n == 8:
            word |= <uint64_t> byte << 56
        else:
            word |= <uint64_t> (byte & 127) << (7 * n)
        n += 1
        if byte < 128 or n == 9:
            value[0] = <int64_t> (word >> 1) ^ -<int64_t> (word & 1)
            return n
    return 0


cdef class Histogram:
    """Counts of nanoseconds.

    Attributes
    ----------
    count : int
        How many values were recorded.
    min, max : int
        Smallest and largest value, to the histogram's resolution, in ns; 0 when empty.
    """

    def __cinit__(self):
        self.hist.counts = <int64_t*> calloc(N_COUNTS, sizeof(int64_t))
        if self.hist.counts == NULL:
            raise MemoryError
        self.hist.smallest = INT64_MAX

    def __dealloc__(self):
        free(self.hist.counts)

    def __repr__(self):
        return f"<Histogram of {self.count} values, p50 {self.percentile(50)} ns, max {self.max}>"

    @property
    def count(self):
        """How many values were recorded."""
        return self.hist.n_values

    @property
    def max(self):
        """Return the largest value, to the histogram's resolution, in ns."""
        return highest_of(hist_index(self.hist.largest)) if self.hist.largest else 0

    @property
    def min(self):
        """Return the smallest value, to the histogram's resolution, in ns."""
        return lowest_of(hist_index(self.hist.smallest)) if self.hist.n_values else 0

    def record(self, int64_t value_ns, int64_t n=1):
        """Count a value `n` times. Negative values count as 0, those above an hour as an hour."""
        cdef int64_t others = n - 1
        if n < 1:
            raise HistogramError(f"a value cannot be counted {n} times; once or more")
        hist_record(&self.hist, value_ns)
        value_ns = min(max(value_ns, 0), HIGHEST_NS)
        self.hist.counts[hist_index(value_ns)] += others
        self.hist.n_values += others

    def percentile(self, double p):
        """Return the value, in ns, that `p` percent of all values do not exceed; 0 when empty.

        It is the highest value that the histogram cannot tell from the one recorded (the lowest
        one for p = 0), as in every HdrHistogram.
        """
        cdef int64_t wanted = <int64_t> (min(max(p, 0.0), 100.0) * self.hist.n_values / 100 + 0.5)
        cdef int64_t total = 0
        cdef int64_t i
        wanted = max(wanted, 1)
        for i in range(N_COUNTS):
            total += self.hist.counts[i]
            if total >= wanted:
                return highest_of(i) if p > 0 else lowest_of(i)
        return 0

    def count_above(self, int64_t value_ns):
        """Return how many values lie above `value_ns` and can be told from it."""
        cdef int64_t total = 0
        cdef int64_t i
        for i in range(hist_index(min(max(value_ns, 0), HIGHEST_NS)) + 1, N_COUNTS):
            total += self.hist.counts[i]
        return total

    def mean(self):
        """Return the mean in ns, each value taken as the middle of what it cannot be told from."""
        cdef double total = 0
        cdef int64_t i
        if self.hist.n_values == 0:
            return 0.0
        for i in range(N_COUNTS):
            if self.hist.counts[i]:
                total += self.hist.counts[i] * <double> (
                    lowest_of(i) + ((highest_of(i) - lowest_of(i) + 1) >> 1)
                )
        return total / self.hist.n_values

    def buckets(self):
        """Return (highest value in ns, count) of every count that is not 0, ascending."""
        return [
            (highest_of(i), self.hist.counts[i])
            for i in range(N_COUNTS)
            if self.hist.counts[i] > 0
        ]

    def merge(self, Histogram other not None):
        """Add the counts of another histogram to this one."""
        cdef int64_t i
        for i in range(N_COUNTS):
            self.hist.counts[i] += other.hist.counts[i]
        self.hist.n_values += other.hist.n_values
        self.hist.largest = max(self.hist.largest, other.hist.largest)
        self.hist.smallest = min(self.hist.smallest, other.hist.smallest)

    def encode(self):
        """Return the histogram as V2 compressed base64 text."""
        cdef int64_t n = hist_index(self.hist.largest) + 1 if self.hist.n_values else 0
        cdef bytearray words = bytearray(9 * n)
        cdef uint8_t* out = words
        cdef Py_ssize_t n_out = 0
        cdef int64_t i = 0
        cdef int64_t n_zeros
        while i < n:
            if self.hist.counts[i]:
                n_out += put_word(out + n_out, self.hist.counts[i])
                i += 1
                continue
            n_zeros = 0
            while i < n and self.hist.counts[i] == 0:
                n_zeros += 1
                i += 1
            n_out += put_word(out + n_out, -n_zeros)
        header = HEADER.pack(COOKIE, n_out, 0, DIGITS, 1, HIGHEST_NS, 1.0)
        deflated = zlib.compress(header + bytes(words[:n_out]))
        return base64.b64encode(
            OUTER.pack(COMPRESSED_COOKIE, len(deflated)) + deflated
        ).decode("ascii")

    @staticmethod
    def decode(str text not None):
        """Read a histogram that `encode`, or another implementation, has written.

        Raises
        ------
        HistogramError
            The text is damaged, or its range and digits are not ours (1 ns to an hour, 3 digits).
        """
        cdef Histogram histogram = Histogram()
        cdef const uint8_t* data
        cdef Py_ssize_t n_data
        cdef Py_ssize_t n
        cdef int64_t word = 0
        cdef int64_t i = 0
        whole = _inflated(text)
        words = whole[HEADER.size:]
        data = words
        n_data = len(words)
        while n_data > 0:
            n = take_word(data, n_data, &word)
            # Zeros at the end may reach to the last count, and no further.
            if n == 0 or word < -N_COUNTS or i + (-word if word < 0 else 1) > N_COUNTS:
                raise HistogramError("an encoded histogram is damaged: its counts do not fit")
            data += n
            n_data -= n
            if word > 0:
                histogram.hist.counts[i] = word
                histogram.hist.n_values += word
                histogram.hist.largest = lowest_of(i)
                histogram.hist.smallest = min(histogram.hist.smallest, lowest_of(i))
            i += -word if word < 0 else 1
        return histogram


def _inflated(text):
    # The header and counts of an encoded histogram, checked.
    try:
        raw = base64.b64decode(text, validate=True)
        cookie, n_deflated = OUTER.unpack_from(raw)
        inflate = zlib.decompressobj()
        whole = inflate.decompress(raw[OUTER.size:], MOST_BYTES)
        inner, n_words, offset, digits, lowest, highest, _ = HEADER.unpack_from(whole)
    except (ValueError, struct.error, zlib.error) as error:
        raise HistogramError(f"an encoded histogram is damaged: {error}") from None
    if cookie & ~0xF0 != COMPRESSED_COOKIE & ~0xF0 or inner & ~0xF0 != COOKIE & ~0xF0:
        raise HistogramError("not a histogram in HdrHistogram's V2 compressed encoding")
    if n_deflated != len(raw) - OUTER.size or n_words != len(whole) - HEADER.size:
        raise HistogramError("an encoded histogram is damaged: its lengths disagree")
    if (offset, digits, lowest, highest) != (0, DIGITS, 1, HIGHEST_NS):
        raise HistogramError(
            f"a histogram of {lowest} to {highest} with {digits} digits cannot be read here; "
            f"ours hold 1 to {HIGHEST_NS} with {DIGITS}"
        )
    return whole
