"""The demo's exploring without processes: what it costs, what is heard, and the words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import precision_score, recall_score

from fastpath.capture import id_hash
from fastpath.ledger import MAX_EXPLORE_SHARE, explored
from server.cli.demo import MAX_EXPLORE_SHARE as MOST
from server.cli.demo import demo
from server.config import load_settings
from server.demo.exploring import Stopped, set_share
from server.demo.exploring_words import aligned, exploring_line, exploring_rows
from server.demo.outcomes import OutcomeStory, Reporter
from server.demo.traffic import Rows
from server.demo.truth import Truth
from server.errors import StartError
from server.pb.scoregate.v1 import control_pb2, scoring_pb2
from server.pb.scoregate.v1 import feedback_pb2 as pb

N_ROWS = 4_000
SHARE = 0.3
CUTS = {"review": 0.5, "block": 1.5}
NAMES = np.array(["approve", "review", "block"])


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(5)
    ids = np.arange(N_ROWS).astype(np.str_)
    fraud = rng.random(N_ROWS) < 0.25
    amount = rng.uniform(1, 99, (N_ROWS, 1)).astype(np.float32)
    amount[7] = np.nan
    return Rows(
        names=np.array(["TX_AMOUNT"]),
        features=amount,
        fraud=fraud,
        transaction=ids,
        customer=ids,
        terminal=ids,
        event_time_ms=np.arange(N_ROWS),
        versions=np.array(["1.0"]),
        raw_score=(rng.normal(size=(1, N_ROWS)) + 2 * fraud).astype(np.float32),
    )


@pytest.fixture
def answers(rows: Rows) -> pd.DataFrame:
    """What a server that explores says of every row, and what the row is."""
    raw = rows.raw_score[0]
    policy = NAMES[np.searchsorted(list(CUTS.values()), raw, side="right")]
    drawn = np.array([explored(id_hash(f"{row}-0"), SHARE) for row in range(N_ROWS)])
    passed = drawn & (policy == "block")
    return pd.DataFrame(
        {
            "raw": raw,
            "decision": np.where(passed, "approve", policy),
            "policy": policy,
            "explored": passed,
            "fraud": rows.fraud,
            "amount": np.nan_to_num(rows.features[:, 0]).astype(np.float64),
        }
    )


def calls(answers: pd.DataFrame) -> Iterator[tuple[int, scoring_pb2.ScoreResponse]]:
    """Yield rows and what a client is told of them."""
    columns = (answers[name].tolist() for name in ("decision", "explored", "raw"))
    for row, (decision, passed, raw) in enumerate(zip(*columns, strict=True)):
        yield (
            row,
            scoring_pb2.ScoreResponse(
                request_id=f"{row}-0",
                decision=decision,
                explored=passed,
                raw_score=raw,
                version="1.0",
                arm="champion",
            ),
        )


def test_what_passed_and_what_was_blocked_is_counted_with_its_amount(
    rows: Rows, answers: pd.DataFrame
) -> None:
    stopped = Stopped(Truth(rows, "block"), "block", is_hidden=True)
    for row, answer in calls(answers):
        stopped.decided(row, answer)
    state = stopped.state()
    assert state.pop("is_hidden") is True
    mine = answers[answers["policy"] == "block"]
    for passed, what in ((True, "explored"), (False, "blocked")):
        for fraud, kind in ((True, "frauds"), (False, "genuine")):
            amounts = mine[(mine["explored"] == passed) & (mine["fraud"] == fraud)]["amount"]
            assert state[what][kind] == [len(amounts), pytest.approx(amounts.sum())]
            assert len(amounts) > 0


def test_nothing_is_heard_of_what_was_blocked_but_of_what_passed(
    rows: Rows, answers: pd.DataFrame
) -> None:
    heard: list[pb.Outcome] = []

    def report(
        requests: Iterator[pb.ReportOutcomesRequest], timeout: float
    ) -> Iterator[pb.ReportOutcomesResponse]:
        for request in requests:
            heard.extend(request.outcomes)
            yield pb.ReportOutcomesResponse()

    now = [0.0]
    reporter = Reporter(
        report,
        Truth(rows, "block"),
        blocked="block",
        default="approve",
        asks=False,
        clock=lambda: now[0],
    )
    for row, answer in calls(answers):
        reporter.decided(row, answer)
    now[0] = 1_000.0
    reporter.send()
    told = {int(outcome.request_id.removesuffix("-0")) for outcome in heard}
    blocked = answers["decision"] == "block"
    assert not told & set(answers.index[blocked])
    disputed = answers.index[answers["explored"] & answers["fraud"]]
    assert len(disputed) > 100
    # Nobody looks into what was approved by chance: its frauds are disputed as any are.
    assert 0.9 < len(told & set(disputed)) / len(disputed) < 1
    sources = {o.source for o in heard if int(o.request_id.removesuffix("-0")) in disputed}
    assert sources == {"chargeback"}


def test_what_is_known_without_exploring_is_scikit_learns_of_the_allowed(
    rows: Rows, answers: pd.DataFrame
) -> None:
    truth = Truth(rows, "block", now_ms=lambda: 5)
    for row, answer in calls(answers):
        truth.decided(row, answer)
    of = partial(truth.quality, "1.0", "champion", from_ms=5, to_ms=5, cuts=CUTS)
    allowed, whole = of(allowed_only=True), of()
    mine = answers[answers["policy"] != "block"]
    said = mine["raw"] >= CUTS["review"]
    assert allowed["n"] == len(mine)
    assert allowed["recall:review"] == pytest.approx(recall_score(mine["fraud"], said))
    assert allowed["precision:review"] == pytest.approx(precision_score(mine["fraud"], said))
    assert allowed["recall:block"] == 0
    assert "precision:block" not in allowed
    assert whole["n"] == N_ROWS
    for name, cut in CUTS.items():
        said = answers["raw"] >= cut
        assert whole[f"recall:{name}"] == pytest.approx(recall_score(answers["fraud"], said))
    assert whole["recall:review"] > allowed["recall:review"] + 0.05


# ----------------------------------------------------------------------- the share


class Refusal(grpc.RpcError):
    """A call that was refused."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "changes are frozen"


@pytest.mark.parametrize(("share", "expected"), [(None, 0.0), (0.0, 0.0), (0.05, 0.05)])
def test_the_share_is_set_before_the_first_call(share: float | None, expected: float) -> None:
    asked: list[control_pb2.SetExplorationRequest] = []

    def call(request: control_pb2.SetExplorationRequest, **_: object) -> control_pb2.ChangeResponse:
        asked.append(request)
        return control_pb2.ChangeResponse()

    set_share(call, share)
    [request] = asked
    assert (request.share, request.model, request.options.who) == (expected, "", "demo")
    assert request.options.why


def test_a_plan_that_is_frozen_stays_where_nothing_else_was_asked_for() -> None:
    def frozen(*_: object, **__: object) -> control_pb2.ChangeResponse:
        raise Refusal(grpc.StatusCode.ABORTED)

    def gone(*_: object, **__: object) -> control_pb2.ChangeResponse:
        raise Refusal(grpc.StatusCode.UNAVAILABLE)

    set_share(frozen, None)
    with pytest.raises(StartError, match=r"0\.05 cannot be explored: changes are frozen"):
        set_share(frozen, 0.05)
    with pytest.raises(StartError):
        set_share(gone, None)


def test_a_server_is_told_which_outcomes_can_be_seen() -> None:
    for explore, unseen in ((None, ("none",)), (0.0, ()), (0.05, ())):
        options = OutcomeStory(explore=explore).serve_options("/somewhere", 500.0)
        flags = {
            flag.removeprefix("--").replace("-", ".", 1).replace("-", "_"): text
            for flag, text in zip(options[::2], options[1::2], strict=True)
        }
        assert load_settings(flags=flags).settings.feedback.unseen_decisions == unseen
    assert OutcomeStory().replay_options == ()
    assert OutcomeStory(explore=0.05).replay_options == ("--explore", "0.05")


def test_the_demo_says_what_will_be_heard_and_what_to_type() -> None:
    lines = "\n".join(OutcomeStory(explore=0.05).lines(" --address a:1", "b:2"))
    assert "each stands for 20" in lines
    assert "    scoregate explore set 0.5 --address a:1 " in lines
    assert "nobody can know" in "\n".join(OutcomeStory(explore=0.0).lines("", "b:2"))
    assert "explore" not in "\n".join(OutcomeStory().lines("", "b:2"))


@pytest.mark.parametrize("wrong", ["-0.1", "0.51", "nan", "all"])
def test_a_share_that_cannot_be_explored_is_refused_at_once(wrong: str) -> None:
    done = CliRunner().invoke(demo, ["--explore", wrong])
    assert done.exit_code == 2
    assert "Invalid value for '--explore'" in done.output
    assert MOST == MAX_EXPLORE_SHARE
    assert "--explore SHARE" in CliRunner().invoke(demo, ["--help"]).output


# --------------------------------------------------------------------------- words


def state(
    *, is_hidden: bool = True, explored: tuple[int, int] = (40, 2), note: str = ""
) -> dict[str, Any]:
    metrics = {
        "auc": [0.9, 0.8, 0.95],
        "recall:review": [0.7421, 0.6841, 0.8014],
        "precision:review": [0.33, None, None],
        "recall:block": [0.41, 0.31, 0.5],
        "precision:block": [None, None, None],
        "value_recall:block": [0.5, 0.4, 0.6],
    }
    report = {
        "version": "1.0",
        "arm": "champion",
        "note": f"70 of 900 decisions have a label{note}",
        "metrics": metrics,
        "truth": {
            "recall:review": 0.738, "precision:review": 0.3364,
            "recall:block": 0.411, "precision:block": 0.917,
        },
        "allowed": {"recall:review": 0.555, "precision:review": 0.1869, "recall:block": 0.0},
    }  # fmt: skip
    return {
        "exploring": {
            "is_hidden": is_hidden,
            "blocked": {"frauds": [150, 20_000.0], "genuine": [8, 900.0]},
            "explored": {
                "frauds": [explored[0], explored[0] * 100.125],
                "genuine": [explored[1], explored[1] * 10.5],
            },
        },
        "live_quality": {"reports": [report], "trouble": ""},
    }


def test_words_say_what_it_cost_and_compare_three_views() -> None:
    assert list(exploring_rows(state(), live=False)) == [
        ("explored", "42 of 200 that reach the blocking threshold (21.0%)", ""),
        ("  cost", "40 frauds worth 4,005.00 passed; and 2 genuine payments worth 21.00", ""),
        ("  bought", "their outcomes, which stand for those of what was blocked:", ""),
        ("", "of 1.0 as champion     allowed only               weighed  truth", ""),
        ("", "recall from review            0.555  0.742 [0.684, 0.801]  0.738", ""),
        ("", "precision from review         0.187                 0.330  0.336", ""),
        ("", "recall from block             0.000  0.410 [0.310, 0.500]  0.411", ""),
        ("", "precision from block        unknown               unknown  0.917", ""),
        ("", "allowed only: the rest of the traffic, which is all one sees without exploring", ""),
        ("", "weighed: what the server found out; explored ones stand for blocked ones", ""),
    ]  # fmt: skip
    assert list(exploring_rows(state(), live=True)) == [
        ("explored", "42 of 200 that reach the blocking threshold (21.0%)", "")
    ]
    assert exploring_line(state()) == "  explored 42 of 200"


def test_words_say_what_makes_figures_unsure() -> None:
    few = [words for _, words, _ in exploring_rows(state(explored=(1, 0)), live=False)]
    assert few[1] == "1 fraud worth 100.12 passed; and 0 genuine payments worth 0.00"
    assert few[-1].startswith("few were explored: ")
    late = state(note="; allowed traffic only, in part: 90 of 158 decisions; and more")
    assert (
        "", "the server says: allowed traffic only, in part: 90 of 158 decisions", "yellow"
    ) in list(exploring_rows(late, live=False))  # fmt: skip


def test_words_are_silent_where_nothing_is_explored() -> None:
    assert not list(exploring_rows(state(is_hidden=False, explored=(0, 0)), live=False))
    assert exploring_line(state(is_hidden=False, explored=(0, 0))) == ""
    # It was begun from another terminal, in a demo where people say what blocked payments were.
    begun = list(exploring_rows(state(is_hidden=False), live=False))
    assert [name for name, _, _ in begun] == ["explored", "  cost", "  bought"]
    assert "--explore" in begun[-1][1]
    # The share is 0: there is nothing to pay for, and nothing to say of what was blocked.
    none = list(exploring_rows(state(explored=(0, 0)), live=False))
    assert none[0] == ("explored", "0 of 158 that reach the blocking threshold (0.0%)", "")
    assert none[1][1].startswith("of 1.0 as champion")
    assert none[-1][1].startswith("weighed: ")
    early = state()
    early["live_quality"]["reports"] = []
    assert [name for name, _, _ in exploring_rows(early, live=False)] == ["explored", "  cost"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("a", "b"), ("aaa", "bbb"), ("", "")]) == ["a      b", "aaa  bbb", "        "]
