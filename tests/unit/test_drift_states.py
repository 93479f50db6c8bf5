"""The state machine's rules, as laws over any sequence of evaluations."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server.drift.settings import DriftSettings
from server.drift.states import NEVER, Machine, Observed, advance

SETTINGS = DriftSettings()
N = 1000  # rows of a window


@st.composite
def evaluations(draw: st.DrawFn) -> list[Observed]:
    found, end = [], N
    for _ in range(draw(st.integers(1, 30))):
        end += draw(st.integers(0, 600))
        found.append(
            Observed(
                is_ready=draw(st.integers(0, 9)) > 0,
                is_broken=draw(st.integers(0, 9)) == 0,
                score=draw(st.sampled_from([0.0, 0.09, 0.1, 0.29, 0.3, 0.31, 0.8, 0.9, 1.0])),
                slow_agrees=draw(st.booleans()),
                first_row=end - N,
                end_row=end,
            )
        )
    return found


@settings(max_examples=400, deadline=None, derandomize=True)
@given(evaluations())
def test_every_state_has_its_reason(seen: list[Observed]) -> None:
    machine = Machine()
    high: list[Observed] = []  # the evaluations in a row that reached the retrain limit
    for now in seen:
        machine = advance(machine, now, SETTINGS)
        usable = now.is_ready and not now.is_broken
        high = [*high, now] if usable and now.score >= SETTINGS.retrain else []
        if not now.is_ready:
            assert machine.state == "warming"
        elif now.is_broken:
            assert machine.state == "broken"
        elif any(before.end_row <= now.first_row for before in high) and now.slow_agrees:
            assert machine.state == "retrain"
        else:
            assert machine.state == ("warning" if now.score >= SETTINGS.warn else "stable")
        assert (machine.high_end == NEVER) == (not high)


def test_two_windows_that_share_a_row_are_not_two() -> None:
    first = Observed(is_ready=True, score=0.5, slow_agrees=True, first_row=0, end_row=1000)
    machine = advance(Machine(), first, SETTINGS)
    assert machine.state == "warning"
    for first_row, state in ((999, "warning"), (1000, "retrain"), (1500, "retrain")):
        now = Observed(
            is_ready=True, score=0.5, slow_agrees=True, first_row=first_row, end_row=first_row + N
        )
        machine = advance(machine, now, SETTINGS)
        assert machine.state == state
    held = Observed(is_ready=True, score=0.9, slow_agrees=False, first_row=3000, end_row=4000)
    assert advance(machine, held, SETTINGS).state == "warning"
