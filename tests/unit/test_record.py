"""Records: the bytes of docs/features.md, their keys, and reading other layouts by name."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import SchemaError
from fastpath.record import HEADER_BYTES, RecordGather, decode_record, encode_records, record_key
from fastpath.schema import FeatureSpec, GroupSpec, Schema
from fastpath.spec import group_fingerprint, layout_fingerprint

DOC = Path(__file__).parents[2] / "docs" / "features.md"

# The worked example of docs/features.md.
COLUMNS = (("n_day", "numeric"), ("foreign", "boolean"), ("channel", "categorical"))
EVENT_TIME_MS = 1_700_000_000_000
GOLDEN = bytes.fromhex(
    "713e44408b1aea4c"  # fingerprint
    "0068e5cf8b010000"  # event time
    "00004841 0000803f 0000c07f"  # 12.5, 1 (true), NaN: no value
)


def test_the_golden_record_is_what_the_page_says() -> None:
    text = b"scoregate.record.1\0customer\nn_day\0numeric\nforeign\0boolean\nchannel\0categorical\n"
    digest = hashlib.sha256(text).digest()[:8]
    built = digest + struct.pack("<q", EVENT_TIME_MS) + struct.pack("<fff", 12.5, 1, np.nan)
    assert built == GOLDEN
    fingerprint = group_fingerprint("customer", COLUMNS)
    assert struct.pack("<Q", fingerprint) == digest
    assert GroupSpec("customer", "customer", COLUMNS).fingerprint == fingerprint
    [row] = encode_records(fingerprint, [EVENT_TIME_MS], [[12.5, 1, np.nan]])
    assert row.tobytes() == GOLDEN
    page = DOC.read_text()
    for part in (GOLDEN[:8], GOLDEN[8:16], GOLDEN[16:20], GOLDEN[20:24], GOLDEN[24:]):
        assert part.hex(" ") in page, "docs/features.md shows other bytes"
    assert record_key("customer", "c-4711").hex(" ") in page
    assert f"{fingerprint:#018x}" in page
    assert f"these {len(text)} bytes" in page
    assert all((line + b"\n").hex(" ") in page for line in text.splitlines()[-3:])
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made: dict[str, bytes] = {}
    exec(code, made)
    assert made["record"] == GOLDEN


def test_a_records_fingerprint_is_of_its_group_and_no_layouts() -> None:
    columns = (("a", "numeric"),)
    others = {
        group_fingerprint("h", columns),
        group_fingerprint("g", (("a", "boolean"),)),
        group_fingerprint("g", (("a", "numeric"), ("b", "numeric"))),
        layout_fingerprint(columns),
    }
    assert len(others) == 4
    assert group_fingerprint("g", columns) not in others


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.integers(1, 9),
    st.data(),
)
def test_what_is_encoded_is_decoded(
    fingerprint: int, times: list[int], n_columns: int, data: st.DataObject
) -> None:
    rows = st.lists(st.floats(width=32), min_size=n_columns, max_size=n_columns)
    values = [data.draw(rows) for _ in times]
    table = np.array(values, np.float32).reshape(len(times), n_columns)
    records = encode_records(fingerprint, np.array(times, np.int64), table)
    assert records.shape == (len(times), HEADER_BYTES + 4 * n_columns)
    assert records.flags.c_contiguous
    for time, row, record in zip(times, table, records, strict=True):
        got = decode_record(record.tobytes())
        assert got[:2] == (fingerprint, time)
        assert got[2].tobytes() == row.tobytes(), "NaN payloads and signs of zero travel too"
        assert record.tobytes()[:16] == struct.pack("<Qq", fingerprint, time)


def test_sliced_and_wider_arrays_are_encoded_by_value() -> None:
    values = np.arange(12, dtype=np.float64).reshape(3, 4)
    [record] = encode_records(1, np.array([5], np.int32), values[1:2, ::2])
    assert decode_record(record.tobytes())[2].tolist() == [4.0, 6.0]


@pytest.mark.parametrize("size", [0, 15, 17, 18, 19, 21])
def test_what_is_not_whole_is_no_record(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes are no record"):
        decode_record(bytes(size))
    assert decode_record(bytes(16))[2].size == 0


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match=r"event times \(2,\) and values \(1, 1\)"):
        encode_records(1, [1, 2], [[1.0]])
    with pytest.raises(ValueError, match=r"values \(3,\)"):
        encode_records(1, [1, 2, 3], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="event times are float64"):
        encode_records(1, [1.5], [[1.0]])
    with pytest.raises(ValueError, match="not of 64 bits"):
        encode_records(1 << 64, [1], [[1.0]])


def test_keys() -> None:
    assert record_key("customer", "c-4711") == b"customer:c-4711"
    assert record_key("a.B_9-", "a:b") == b"a.B_9-:a:b", "a group's name has no colon: no ambiguity"
    assert record_key("g", "é" * 128) == b"g:" + "é".encode() * 128
    for bad in ("", "a b", "a:b", "x" * 65, "é"):
        with pytest.raises(SchemaError, match="a group's name is"):
            record_key(bad, "1")
    with pytest.raises(SchemaError, match="group g: entity id '' has 0 bytes"):
        record_key("g", "")
    with pytest.raises(SchemaError, match="has 258 bytes; an id has 1 to 256"):
        record_key("g", "é" * 129)
    with pytest.raises(SchemaError, match="is not valid Unicode"):
        record_key("g", "\udc80")


def stored_schema() -> Schema:
    """Return a schema of two groups; features of the second are not in record order."""
    return Schema(
        [
            FeatureSpec("amount", "numeric"),
            FeatureSpec("risk", "numeric", source="terminal"),
            FeatureSpec("c", "numeric", source="customer"),
            FeatureSpec("own_a", "numeric", source="customer", column="a"),
            FeatureSpec("b", "boolean", source="customer"),
        ],
        [
            GroupSpec("terminal", "terminal", (("risk", "numeric"),)),
            GroupSpec(
                "customer", "customer", (("a", "numeric"), ("b", "boolean"), ("c", "numeric"))
            ),
        ],
    )


@given(st.data())
def test_records_are_read_by_name_in_any_order(data: st.DataObject) -> None:
    schema = stored_schema()
    kinds = {"a": "numeric", "b": "boolean", "c": "numeric", "x": "numeric", "amount": "boolean"}
    names = data.draw(st.permutations(list(kinds)))[: data.draw(st.integers(1, 5))]
    layout = [(name, kinds[name]) for name in names]
    gather = RecordGather(schema, 1, layout)
    assert gather.members == [2, 3, 4]
    assert gather.column_of == [names.index(n) if n in names else -1 for n in ("c", "a", "b")]
    assert gather.n_columns == len(names)
    assert gather.columns == tuple(layout)
    assert gather.fingerprint == group_fingerprint("customer", layout)


def test_records_that_a_schema_cannot_read() -> None:
    schema = stored_schema()
    with pytest.raises(SchemaError, match=r"'customer': .* 'own_a' as boolean, the schema as"):
        RecordGather(schema, 1, [("a", "boolean")])
    with pytest.raises(SchemaError, match="group 'terminal': column 'r' stands twice, at 0 and 1"):
        RecordGather(schema, 0, [("r", "numeric"), ("r", "numeric")])
    with pytest.raises(SchemaError, match="group 'terminal': 0 columns"):
        RecordGather(schema, 0, [])
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"group {index}: the schema has 2"):
            RecordGather(schema, index, [("a", "numeric")])
