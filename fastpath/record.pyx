"""Stored records: how they are told apart, read by name, keyed and made.

Format (docs/features.md holds it byte for byte)
------------------------------------------------
A record is one entity's features of one group: the group's fingerprint (u64), the event time in
milliseconds since the epoch as of which the values hold (i64), then one float32 per column, all
little endian, without padding or trailer; NaN is "no value". Its key is the group's name, ":" and
the entity's id in UTF-8.

How it works
------------
The fingerprint says which columns the values are. A `RecordGather` maps the columns of one such
layout of a group onto a schema's features by name, once, when a plan is made; reading a record is
then two loads and a look-up per feature. Stores return records at any address, so nothing is
read through a cast.

`encode_records` and the others with `def` are for writers, tests and tools; the engine uses
`parse_record` and the compiled tables. Does not know any store and does not judge ages.
"""

import numpy as np

from fastpath.errors import SchemaError
from fastpath.group_spec import GROUP_NAME
from fastpath.spec import check_columns, group_fingerprint

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastpath._types cimport MAX_ENTITY_ID_BYTES, RECORD_HEADER_BYTES
from fastpath.schema cimport Schema

__all__ = ["HEADER_BYTES", "RecordGather", "decode_record", "encode_records", "record_key"]

# The format is little endian and so is every machine that this is built for (see setup.py's flags
# and the AVX2 kernels); a record is therefore copied, not converted.
HEADER_BYTES = RECORD_HEADER_BYTES


cdef int32_t parse_record(const uint8_t* data, size_t size, record_t* out) noexcept nogil:
    if size < RECORD_HEADER_BYTES or (size - RECORD_HEADER_BYTES) % sizeof(float) != 0:
        return -1
    memcpy(&out.fingerprint, data, 8)
    memcpy(&out.event_time_ms, data + 8, 8)
    out.values = data + RECORD_HEADER_BYTES
    out.n_values = <int32_t> ((size - RECORD_HEADER_BYTES) // sizeof(float))
    return 0


cdef class RecordGather:
    """Where a schema finds the features of one of its groups in records of one layout.

    Parameters
    ----------
    schema : Schema
        Of the arm that reads the records. Kept alive.
    group_index : int
        The group, by its index in `schema.groups`.
    columns : iterable of (name, type)
        What such records hold, in order: the group's own columns, or those that another schema
        declares for a group of this name. Columns that no feature reads are allowed, and so are
        features without a column: they have no value there.

    Attributes
    ----------
    schema : Schema
    group : int
    columns : tuple of (name, type)

    Raises
    ------
    SchemaError
        A column has another type than the feature that reads it, or the columns are themselves
        inconsistent. The message names group and feature.
    IndexError
        The schema has no such group.
    """

    def __cinit__(self, Schema schema not None, int group_index, columns):
        cdef Py_ssize_t i
        if not 0 <= group_index < schema.table.n_groups:
            raise IndexError(f"group {group_index}: the schema has {schema.table.n_groups}")
        name = schema.groups[group_index].name
        layout = tuple((column, kind) for column, kind in columns)
        check_columns(layout, f"group {name!r}: ")
        self.schema = schema
        self.group = group_index
        self.columns = layout
        n_members = schema.table.groups[group_index].n_members
        self.column = <int32_t*> calloc(n_members, sizeof(int32_t))
        if self.column is NULL:
            raise MemoryError
        self.table.column = self.column
        self.table.n_columns = <int32_t> len(layout)
        self.table.fingerprint = group_fingerprint(name, layout)
        at = {column: index for index, (column, _) in enumerate(layout)}
        for i in range(n_members):
            spec = schema.specs[schema.table.groups[group_index].members[i]]
            self.column[i] = at.get(spec.record_column, -1)
            if self.column[i] >= 0 and layout[self.column[i]][1] != spec.type:
                raise SchemaError(
                    f"group {name!r}: records {self.fingerprint:#018x} hold feature "
                    f"{spec.name!r} as {layout[self.column[i]][1]}, the schema as {spec.type}: "
                    "give the column a new name"
                )

    def __dealloc__(self):
        free(self.column)

    def __repr__(self):
        name = self.schema.groups[self.group].name
        return f"<RecordGather {name} {self.fingerprint:#018x} to {self.schema!r}>"

    @property
    def fingerprint(self):
        """Fingerprint of the records that are read."""
        return self.table.fingerprint

    @property
    def n_columns(self):
        """Number of values that such a record holds."""
        return self.table.n_columns

    @property
    def members(self):
        """Feature index of each member of the group, ascending: a list of n_members."""
        cdef Py_ssize_t i
        cdef Py_ssize_t n = self.schema.table.groups[self.group].n_members
        return [self.schema.table.groups[self.group].members[i] for i in range(n)]

    @property
    def column_of(self):
        """Column of each member, or -1 where such records lack it: a list of n_members."""
        cdef Py_ssize_t i
        cdef Py_ssize_t n = self.schema.table.groups[self.group].n_members
        return [self.column[i] for i in range(n)]


# ---------------------------------------------------- for writers and tools

def record_key(str group not None, str entity_id not None):
    """Return the key bytes of an entity's record, without a store's own prefix.

    Parameters
    ----------
    group : str
        The group's name.
    entity_id : str
        1 to 256 bytes of UTF-8.

    Raises
    ------
    SchemaError
        The name is not a group's, or the id is empty or too long: it is never stored.
    """
    cdef bytes name
    if not GROUP_NAME.fullmatch(group):
        raise SchemaError(
            f"group {group!r}: a group's name is 1 to 64 letters, digits, '_', '.' and '-'"
        )
    try:
        name = entity_id.encode()
    except UnicodeEncodeError:
        raise SchemaError(f"group {group}: entity id {entity_id!r} is not valid Unicode") from None
    if not 1 <= len(name) <= MAX_ENTITY_ID_BYTES:
        raise SchemaError(
            f"group {group}: entity id {entity_id[:40]!r} has {len(name)} bytes; "
            f"an id has 1 to {MAX_ENTITY_ID_BYTES}"
        )
    return group.encode() + b":" + name


def encode_records(fingerprint, event_time_ms, values):
    """Return many records of one layout.

    Parameters
    ----------
    fingerprint : int
        `group_fingerprint` of the columns of `values`.
    event_time_ms : array_like of int64, shape (n,)
        Milliseconds since the epoch as of which each row holds.
    values : array_like of float32, shape (n, k)
        NaN: no value. Rounded to float32 where it is not.

    Returns
    -------
    numpy.ndarray of uint8, shape (n, 16 + 4 * k)
        C-contiguous; row i is the record of row i.

    Raises
    ------
    ValueError
        The shapes do not fit, the fingerprint is no 64-bit number, or a time is not whole.
    """
    times = np.asarray(event_time_ms)
    rows = np.ascontiguousarray(values, dtype="<f4")
    if rows.ndim != 2 or times.shape != (len(rows),) or rows.shape[1] == 0:
        raise ValueError(
            f"event times {times.shape} and values {rows.shape} are not of shape (n,) and (n, k)"
        )
    if len(times) and times.dtype.kind not in "iu":
        raise ValueError(f"event times are {times.dtype}; give whole milliseconds as int64")
    if not 0 <= fingerprint < 1 << 64:
        raise ValueError(f"fingerprint {fingerprint} is not of 64 bits")
    out = np.empty((len(rows), RECORD_HEADER_BYTES + 4 * rows.shape[1]), dtype=np.uint8)
    out[:, :8] = np.frombuffer(int(fingerprint).to_bytes(8, "little"), dtype=np.uint8)
    out[:, 8:RECORD_HEADER_BYTES] = times.astype("<i8").reshape(-1, 1).view(np.uint8)
    out[:, RECORD_HEADER_BYTES:] = rows.view(np.uint8)
    return out


def decode_record(bytes data not None):
    """Split a record with the serving path's own function.

    Returns
    -------
    fingerprint : int
    event_time_ms : int
    values : numpy.ndarray of float32, shape (k,)
        A copy.

    Raises
    ------
    ValueError
        Shorter than a header, or the values are not whole.
    """
    cdef record_t record
    if parse_record(<const uint8_t*> <const char*> data, len(data), &record) != 0:
        raise ValueError(
            f"{len(data)} bytes are no record: it has {RECORD_HEADER_BYTES} bytes and 4 per value"
        )
    values = np.frombuffer(data, dtype="<f4", offset=RECORD_HEADER_BYTES).astype(np.float32)
    return record.fingerprint, record.event_time_ms, values
