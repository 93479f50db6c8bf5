"""Comparing results: noise is no news, a shift is, and files that cannot be compared say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import compare, results
from bench.compare import FASTER, NOT_JUDGED, NOTHING, SLOWER
from bench.errors import ResultError
from bench.results import Spread, Target

VALUES = st.floats(1e-3, 1e9, allow_nan=False)


def result(values: dict[str, list[float]], cores: int = 2) -> dict[str, Any]:
    spreads = {name: Spread.of(found) for name, found in values.items()}
    document = results.document(spreads, [Target("t", 1.0, "<=", 2.0)], "test")
    document["machine"] = {"processor": "p", "cores": cores, "kernel": "k"}
    return document


@settings(max_examples=100, derandomize=True)
@given(st.lists(VALUES, min_size=1, max_size=12))
def test_a_file_compared_with_itself_shows_nothing(repetitions: list[float]) -> None:
    document = result({"a.p99_us": repetitions, "cpu_us_per_call_echo": repetitions})
    assert {v.verdict for v in compare.compare(document, document)} == {NOTHING}


@settings(max_examples=40, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 1e6), st.booleans())
def test_a_shift_of_a_fifth_with_small_noise_is_found(seed: int, level: float, grows: bool) -> None:
    rng = np.random.default_rng(seed)
    a = level * rng.normal(1.0, 0.01, 5)
    b = level * (1.2 if grows else 1 / 1.2) * rng.normal(1.0, 0.01, 5)
    latency, rate = (SLOWER, FASTER) if grows else (FASTER, SLOWER)
    assert compare.judge("a.p99_us", list(a), list(b)).verdict == latency
    assert compare.judge("a.calls_per_s", list(a), list(b)).verdict == rate


def test_noise_alone_is_seldom_called_a_change() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(400):
        a, b = rng.normal(100, 5, 5), rng.normal(100, 5, 5)
        alarms += compare.judge("a.p50_us", list(a), list(b)).verdict != NOTHING
    assert alarms <= 12, f"{alarms} false alarms in 400: more than 3 %"


def test_a_change_too_small_for_a_word_is_none() -> None:
    verdict = compare.judge("a.p50_us", [100.0] * 5, [102.0] * 5)
    assert verdict.verdict == NOTHING
    assert compare.judge("a.p50_us", [100.0] * 5, [102.0] * 5, min_effect=0.01).verdict == SLOWER


def test_the_interval_holds_the_change() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(10, 1, 9), rng.normal(13, 1, 9)
    low, high = compare.interval(list(a), list(b))
    assert low < np.median(b) / np.median(a) < high
    assert compare.interval(list(a), list(b)) == (low, high), "the same twice"


def test_one_repetition_shows_nothing_but_instructions_do() -> None:
    verdict = compare.judge("a.p50_us", [1.0], [9.0])
    assert (verdict.verdict, verdict.note) == (NOTHING, "fewer than 3 repetitions")
    name = "instructions_per_call_echo"
    assert compare.judge(name, [16_000.0], [15_000.0]).verdict == FASTER


def test_circumstances_are_not_judged() -> None:
    assert compare.judge("a.offered_per_s", [1.0] * 5, [2.0] * 5).verdict == NOT_JUDGED
    assert compare.judge("a.busy_share", [0.1] * 5, [0.9] * 5).verdict == NOT_JUDGED


def test_errors_that_appear_are_worse() -> None:
    assert compare.judge("a.n_errors", [0.0] * 5, [3.0] * 5).verdict == SLOWER
    assert compare.judge("a.n_errors", [3.0] * 5, [0.0] * 5).verdict == FASTER
    assert compare.judge("a.n_errors", [0.0] * 5, [0.0] * 5).verdict == NOTHING


def test_another_machine_leaves_only_ratios() -> None:
    names = ["cpu_us_per_call_echo", "cpu_ratio_score_to_echo"]
    a = result({name: [1.0, 1.01, 1.0] for name in names})
    b = result({name: [2.0, 2.01, 2.0] for name in names}, cores=64)
    assert [v.verdict for v in compare.compare(a, b)] == [NOT_JUDGED, SLOWER]


def test_scenario_figures_and_ratios_are_compared() -> None:
    spread = Spread.of([1.0, 1.0, 1.0])
    values = {"metrics": {"score.p99_us": spread}, "ratios": {"p99_ratio": spread}}
    document = results.document(values, [], "test")
    assert set(results.spreads(document)) == {"score.p99_us", "p99_ratio"}


def test_files_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(ResultError, match="no figure in common"):
        compare.compare(result({"x_us": [1.0]}), result({"y_us": [1.0]}))


def test_result_files_return_what_was_written(tmp_path: Path) -> None:
    document = result({"x_us": [1.0, float("nan"), 3.0]})
    path = tmp_path / "deep" / "r.json"
    results.save(path, document)
    assert results.read(path) == document
    assert results.spreads(document)["x_us"] == (1.0, 3.0)
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not valid JSON"), ("[]", "no result file"), ('{"taken": 1}', "machine, targets")],
)
def test_files_that_are_no_results_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=said):
        results.read(path)
    with pytest.raises(ResultError, match="cannot be read"):
        results.read(tmp_path / "none.json")


def test_the_table_and_json_say_the_same() -> None:
    a, b = result({"a.p50_us": [1.0, 1.0, 1.0]}), result({"a.p50_us": [2.0, 2.0, 2.0]})
    verdicts = compare.compare(a, b)
    text = compare.table(verdicts)
    assert "slower" in text
    assert "0 faster, 1 slower" in text
    assert json.loads(json.dumps(results.plain(verdicts)))[0]["verdict"] == SLOWER
