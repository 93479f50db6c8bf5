"""The monitor on real transactions: the handbook's weeks, untouched and with faults.

The file is not part of the project: SCOREGATE_HANDBOOK names it, else it is looked for beside the
repository; where it is absent these tests skip.
"""

from __future__ import annotations

import pytest

from bench.drift_handbook import (
    Rows,
    days,
    fault_row,
    handbook_file,
    read_rows,
    reference_week,
    replay,
)
from server.drift import DriftSettings

pytestmark = pytest.mark.skipif(
    not handbook_file().is_file(),
    reason=f"the handbook's transactions are not at {handbook_file()}: set SCOREGATE_HANDBOOK",
)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return read_rows(handbook_file())


def test_an_untouched_week_is_stable_because_night_is_compared_with_night(rows: Rows) -> None:
    week = days(rows, 28, 2)
    settings = DriftSettings(n_rows=1000)
    calm = replay(reference_week(days(rows, 21, 7)), week, settings)
    assert {e.state for _, e in calm} == {"warming", "stable"}
    alarmed = replay(reference_week(days(rows, 21, 7), "auto"), week, settings)
    high = [e for _, e in alarmed if e.state != "warming" and e.score >= 0.1]
    assert len(high) > 0.95 * len(alarmed)
    for evaluation in high:
        moved = {f.name for f in evaluation.features if f.score >= 0.1}
        assert moved <= {"TX_DURING_WEEKEND", "TX_DURING_NIGHT"}


@pytest.mark.parametrize(
    ("fault", "state", "within", "named"),
    [
        ("amounts in cents (x 100)", "retrain", 5000, "TX_AMOUNT"),
        ("TX_AMOUNT dropped", "broken", 500, "TX_AMOUNT: missing values"),
        ("a new category in 15 % of rows", "broken", 2500, "CHANNEL"),
        ("customer features stuck at one value", "broken", 2500, "CUSTOMER_ID"),
    ],
)
def test_faults_come_to_their_state(
    rows: Rows, fault: str, state: str, within: int, named: str
) -> None:
    found = fault_row(rows, fault, n_days=1)
    assert set(found["before"]) == {"warming", "stable"}
    assert found["rows_to"][state] <= within
    assert found["last_state"] == state
    assert found["named"].startswith(named)
    assert ("broken" in found["rows_to"]) == (state == "broken")
