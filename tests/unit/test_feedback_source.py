"""Outcomes in files: the same rows from every format, and errors that name the row."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from server.errors import InputError
from server.feedback.source import NEGATIVE, POSITIVE, RETRACTED, BadRow, Outcome, OutcomeFile

MOMENT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MOMENT_MS = 1_772_366_400_000


def rows_of(path: Path, **options: Any) -> list[Outcome | BadRow]:
    return list(OutcomeFile(path, **options).rows())


def test_every_format_says_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "request_id": ["a", "b", "c"],
            "label": [1, 0, 1],
            "amount": [12.5, None, 0.0],
            "time": [MOMENT] * 3,
            "source": ["chargeback", "chargeback", None],
        }
    )
    frame.to_parquet(tmp_path / "o.parquet")
    frame.to_csv(tmp_path / "o.csv", index=False)
    lines = [
        {"request_id": "a", "label": 1, "amount": 12.5, "time": MOMENT_MS, "source": "chargeback"},
        {"request_id": "b", "label": False, "time": "2026-03-01T12:00:00", "source": "chargeback"},
        {"request_id": "c", "label": "fraud", "amount": 0, "time": "2026-03-01T13:00:00+01:00"},
    ]
    (tmp_path / "o.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    wanted = [
        Outcome(1, "a", POSITIVE, "fraud", 12.5, MOMENT_MS, "chargeback"),
        Outcome(2, "b", NEGATIVE, "fraud", 0.0, MOMENT_MS, "chargeback"),
        Outcome(3, "c", POSITIVE, "fraud", 0.0, MOMENT_MS, "me"),
    ]
    for name in ("o.parquet", "o.csv", "o.jsonl"):
        file = OutcomeFile(tmp_path / name, model="fraud", source="me")
        assert list(file.rows()) == wanted, name
        assert 0 < file.n_bytes_read <= file.n_bytes


def test_columns_and_labels_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("txn,verdict,who\n17,Confirmed,x\n18,fine,\n19,RETRACTED,y\n20,1.0,z\n")
    found = rows_of(
        path,
        columns={"request_id": "txn", "label": "verdict", "source": "who"},
        labels={"confirmed": POSITIVE, "Fine": NEGATIVE},
    )
    assert [(one.request_id, one.label, one.source) for one in found if len(one) > 2] == [
        ("17", POSITIVE, "x"), ("18", NEGATIVE, ""), ("19", RETRACTED, "y"), ("20", POSITIVE, "z"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (",1,,", "request id None"),
        (f"{'x' * 129},1,,", "text of 1 to 128 bytes"),
        ("a,,,", "label None"),
        ("a,perhaps,,", "label 'perhaps'"),
        ("a,1,-3,", "amount '-3'"),
        ("a,1,much,", "amount 'much'"),
        ("a,1,inf,", "amount 'inf'"),
        ("a,1,,yesterday", "time 'yesterday'"),
        ("a,1,", "3 cells; the heading has 4"),
        ("a,\x1b[2J,,", r"label '\x1b[2J'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_the_next_goes_on(
    tmp_path: Path, cells: str, why: str
) -> None:
    path = tmp_path / "o.csv"
    path.write_text(f"request_id,label,amount,time\nok,0,1,0\n{cells}\nok,1,,\n")
    first, bad, last = rows_of(path)
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert why in bad.why
    assert bad.why.isprintable()
    assert (first[1], last[1]) == ("ok", "ok")


def test_lines_that_are_no_json_are_named(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(b'{"request_id": "a", "label": 1}\n[1]\n{"request\n\xff\n')
    found = rows_of(path)
    assert [type(one) for one in found] == [Outcome, BadRow, BadRow, BadRow]
    assert [one[0] for one in found] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("o.txt", b"", r"name a \.csv, \.parquet or \.jsonl file"),
        ("o.csv", b"", "empty"),
        ("o.csv", b"id,label\n", r"no column 'request_id' \(--id-column names another\)"),
        ("o.parquet", b"not parquet", "cannot be read"),
        ("o.csv", b"request_id,label\n\xff\xfe,1\n", "cannot be read behind row 0"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        rows_of(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(b"\xef\xbb\xbfrequest_id,label\na,1\n")
    assert rows_of(path) == [Outcome(1, "a", POSITIVE, "", 0.0, 0, "")]
