"""Scenario files: those of the house are well, malformed ones say file, key and what."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import adhoc, recording, scenario, sources
from bench.errors import ScenarioError, SourceError
from bench.message import Message
from bench.model import NAMES, BenchModel
from bench.scenario import Bursts, Constant, ParquetRows, Poisson, Rate, Rows
from server.pb.scoregate.v1 import scoring_pb2 as pb

GOOD = """
title = "t"
about = "a"
load = { kind = "poisson", rate = { per_s = 1000 } }
[[runs]]
name = "a"
server = "echo"
[[runs]]
name = "b"
server = "score"
[[acceptance]]
name = "ratio"
numerator = "b.p99_us"
denominator = "a.p99_us"
op = "<="
target = 2.0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(scenario.available()))
def test_every_scenario_of_the_house_loads_and_promises_something(name: str) -> None:
    made = scenario.load(scenario.find(name))
    assert made.name == name
    assert made.acceptance
    assert len(made.runs) >= 2, "claims are ratios of runs within a repetition"


def test_a_good_scenario_holds_what_was_written(tmp_path: Path) -> None:
    made = scenario.load(write(tmp_path, GOOD))
    assert made.name == "mine"
    assert made.load == Poisson(Rate(per_s=1000))
    assert [run.server for run in made.runs] == ["echo", "score"]
    assert made.acceptance[0].denominator == "a.p99_us"


# What is changed in the good one, and what the error has to say.
MALFORMED = {
    "not TOML": ("title =", "title = =", "not valid TOML"),
    "unknown key": ('about = "a"', 'about = "a"\ncolour = 1', "colour"),
    "unknown key in a run": ('server = "echo"', 'server = "echo"\nspeed = 1', "runs[0]"),
    "missing key": ('about = "a"', "", "about"),
    "wrong type": ('title = "t"', "title = 7", "title"),
    "unknown load": ('"poisson"', '"warp"', "load"),
    "rate of zero": ("per_s = 1000", "per_s = 0", "load.rate.per_s"),
    "impossible rate": ("per_s = 1000", "per_s = 1e12", "load.rate.per_s"),
    "no rate": ("per_s = 1000", "", "load.rate: give either"),
    "two rates": ("per_s = 1000", "per_s = 1000, capacity = 0.5", "give either"),
    "unknown server": ('server = "echo"', 'server = "ecco"', "runs[0].server: 'ecco'"),
    "a name twice": ('name = "b"', 'name = "a"', "runs[1].name"),
    "unknown run": ('"b.p99_us"', '"c.p99_us"', "acceptance[0].numerator"),
    "unknown quantity": ('"a.p99_us"', '"a.p98_us"', "acceptance[0].denominator"),
    "unknown operator": ('"<="', '"<"', "acceptance[0].op"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_scenarios_name_file_and_key(case: str, tmp_path: Path) -> None:
    old, new, said = MALFORMED[case]
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        scenario.load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenario.load(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="UTF-8"):
        scenario.load(binary)
    with pytest.raises(ScenarioError, match="no scenario of this name"):
        scenario.find("no-such-scenario")


@settings(max_examples=60, derandomize=True)
@given(st.text(max_size=300))
def test_no_text_makes_a_traceback(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.toml")
        path.write_text(text, encoding="utf-8", errors="replace")
        with pytest.raises(ScenarioError):
            scenario.load(path)


def test_options_make_a_scenario() -> None:
    made = adhoc.scenario({"server": "echo", "rate": "5,000", "poisson": True, "streams": 2}, None)
    assert made.load == Poisson(Rate(per_s=5000))
    assert made.shape.streams == 2
    made = adhoc.scenario({"server": "echo", "rate": "50%"}, None)
    assert made.load == Constant(Rate(capacity=0.5, of="echo"))
    assert scenario.capacities(made) == ["echo"]
    made = adhoc.scenario({"bursts": "100:2000:1:0.1"}, None)
    assert made.load == Bursts(Rate(per_s=100), Rate(per_s=2000), 1.0, 0.1)


@pytest.mark.parametrize(
    "given",
    [
        {"rate": "fast"},
        {"rate": "-1"},
        {"rate": "nan"},
        {"rate": "1e99"},
        {"rate": "10", "closed": True},
        {"poisson": True},
        {"ramp": "10"},
        {"bursts": "1:2:3"},
        {"bursts": "1:2:0.1:1"},
        {"message": "a", "parquet": "b"},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ScenarioError):
        adhoc.scenario(given, None)


def test_options_lie_over_a_scenario(tmp_path: Path) -> None:
    base = scenario.load(write(tmp_path, GOOD))
    made = adhoc.scenario({"rate": "7", "duration_s": 1.0, "connections": 3}, base)
    assert made.load == Constant(Rate(per_s=7))
    assert (made.duration_s, made.shape.connections, made.shape.streams) == (1.0, 3, 4)
    assert made.acceptance == base.acceptance


# ------------------------------------------------------------------ messages

MESSAGES = st.builds(
    Message,
    method=st.from_regex(r"/[a-zA-Z.]{1,20}/[a-zA-Z]{1,20}", fullmatch=True),
    body=st.binary(max_size=300),
    expected=st.none() | st.binary(max_size=100),
)
SCORED = st.builds(
    Message,
    method=st.just("/scoregate.v1.Scoring/Score"),
    body=st.binary(max_size=50),
    expected_raw=st.floats(width=32, allow_nan=False),
)


@settings(max_examples=60, derandomize=True)
@given(st.lists(MESSAGES | SCORED, min_size=1, max_size=20))
def test_a_recording_returns_what_was_written(messages: list[Message]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "some.rec")
        recording.write(path, messages)
        assert recording.read(path) == messages


def test_every_damaged_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.rec"
    recording.write(path, [Message("/a.B/C", b"12345", b"6"), Message("/a.B/D", b"", None, 0.5)])
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i])
        with pytest.raises(SourceError, match=r"some\.rec"):
            recording.read(path)
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(SourceError, match=r"some\.rec"):
            recording.read(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(SourceError):
        recording.read(path)


class FakeModel(BenchModel):
    """Rows without a bundle; a score that a test can compute."""

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.sum(axis=1), dtype=np.float32)


def fake_model() -> BenchModel:
    rows = np.random.default_rng(3).normal(size=(50, len(NAMES))).astype(np.float32)
    return FakeModel(Path("none"), Path("none"), rows)


@pytest.mark.parametrize("form", ["dense", "named"])
def test_requests_differ_and_carry_their_own_score(form: str) -> None:
    source = Rows(n=40, form=form, extra_bytes=1000)  # type: ignore[arg-type]
    made = sources.messages(source, sources.SCORE, fake_model)
    assert len({message.body for message in made}) == 40
    ids, entities = set(), set()
    for message in made:
        request = pb.ScoreRequest.FromString(message.body)
        if form == "dense":
            values = np.array(request.dense.values, dtype=np.float32)
        else:
            named = request.named.values
            values = np.array([named[name].number for name in NAMES], dtype=np.float32)
        assert message.expected_raw == pytest.approx(values.sum(), rel=1e-5)
        assert len(message.body) > 1000
        ids.add(request.request_id)
        entities.add(request.entities[0].id)
    assert len(ids) == 40
    assert len(entities) > 10


def test_an_echo_expects_itself() -> None:
    made = sources.messages(Rows(n=3), sources.ECHO, fake_model)
    assert [message.expected for message in made] == [message.body for message in made]


def test_parquet_rows_become_requests(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "rows.parquet"
    frame = pd.DataFrame(
        {
            "id": ["x", "y"],
            "card": ["c1", "c2"],
            "amount": [1.5, None],
            "night": [True, False],
            "kind": ["a", "b"],
        }
    )
    frame.to_parquet(path)
    source = ParquetRows(
        str(path),
        columns=["amount", "night", "kind"],
        form="named",
        request_id="id",
        entities=[scenario.EntityColumn("payer", "card", "card")],
        model="m",
    )
    requests = [pb.ScoreRequest.FromString(body) for body in sources.parquet(source)]
    assert [request.request_id for request in requests] == ["x", "y"]
    assert requests[0].named.values["amount"].number == 1.5
    assert requests[1].named.values["amount"].WhichOneof("kind") is None
    assert requests[0].named.values["night"].flag is True
    assert requests[1].named.values["kind"].text == "b"
    assert requests[1].entities[0].id == "c2"
    dense = ParquetRows(str(path), columns=["amount", "night"])
    body = sources.parquet(dense)[1]
    values = pb.ScoreRequest.FromString(body).dense.values
    assert struct.pack("<2f", *values) == struct.pack("<2f", float("nan"), 0.0)


@pytest.mark.parametrize(
    ("columns", "said"),
    [(["nope"], "no column 'nope'"), (["kind"], "text"), (["when"], "no feature")],
)
def test_parquet_that_cannot_be_sent_is_refused(
    columns: list[str], said: str, tmp_path: Path
) -> None:
    import pandas as pd

    path = tmp_path / "rows.parquet"
    pd.DataFrame({"kind": ["a"], "when": [pd.Timestamp(0)]}).to_parquet(path)
    with pytest.raises(SourceError, match=said):
        sources.parquet(ParquetRows(str(path), columns=columns))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        sources.parquet(ParquetRows(str(path)))
