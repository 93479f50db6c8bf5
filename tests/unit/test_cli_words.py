"""What the verbs take and print, without a server."""

from __future__ import annotations

import inspect
import subprocess
import sys
from decimal import Decimal

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli import COMMANDS, lines, scoregate
from server.cli.arguments import basis_points, model_and_version, pairs, scores, weights
from server.cli.changed import render
from server.cli.explained import explain
from server.cli.history import render as render_history
from server.cli.history import summary
from server.cli.models import render as render_models
from server.cli.overrides import render as render_overrides
from server.cli.remote import is_local
from server.cli.status import render as render_status
from server.cli.thresholds import render as render_thresholds
from server.cli.watch import Page, line
from server.errors import CallError, InputError
from server.pb.scoregate.v1 import control_pb2 as pb
from tests.support.serving import ROOT

# ------------------------------------------------------------------- arguments


@given(st.integers(0, 10_000), st.sampled_from(["", "%", " %"]))
def test_every_basis_point_can_be_typed(share: int, unit: str) -> None:
    typed = f"{Decimal(share) / 100}{unit}"
    assert basis_points(typed) == share
    assert weights([f"a={typed}"]) == {"a": share}


@pytest.mark.parametrize("text", ["", "-1", "100.01", "1.005", "nan", "inf", "ten", "1e9", "%"])
def test_what_is_no_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="no percentage: 0 to 100, with at most two decimals"):
        basis_points(text)


def test_pairs_are_cut_at_the_last_equals_sign() -> None:
    assert pairs(["a=b=c", "d=e"], "KEY=ARM") == {"a=b": "c", "d": "e"}
    assert scores(["review=.4", "block=1e-1"]) == {"review": 0.4, "block": 0.1}


@pytest.mark.parametrize(
    ("given", "says"),
    [(["a"], "'a' is not KEY=ARM"), (["=b"], "'=b' is not"), (["a="], "'a=' is not"),
     (["a=b", "a=c"], "'a' is given twice")],
)  # fmt: skip
def test_what_is_no_pair(given: list[str], says: str) -> None:
    with pytest.raises(click.UsageError, match=says):
        pairs(given, "KEY=ARM")


def test_the_model_may_stand_before_the_version() -> None:
    assert model_and_version(["2.0"]) == ("", "2.0")
    assert model_and_version(["fraud", "2.0"]) == ("fraud", "2.0")
    with pytest.raises(click.UsageError, match=r"give \[MODEL\] VERSION"):
        model_and_version(["a", "b", "c"])


# ----------------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("INVALID_ARGUMENT", InputError, "answered INVALID_ARGUMENT: text"),
        ("NOT_FOUND", InputError, "answered NOT_FOUND"),
        ("FAILED_PRECONDITION", InputError, "answered FAILED_PRECONDITION"),
        ("ABORTED", CallError, "answered ABORTED: text"),
        ("UNAUTHENTICATED", CallError, "answered UNAUTHENTICATED: text"),
        ("PERMISSION_DENIED", CallError, "answered PERMISSION_DENIED: text"),
        ("INTERNAL", CallError, "answered INTERNAL"),
        ("RESOURCE_EXHAUSTED", CallError, "EXHAUSTED: text; it may have been carried out"),
        ("UNIMPLEMENTED", CallError, "is it a control port"),
        ("UNAVAILABLE", CallError, "no answer from h:1 .*serve.*; it may have been carried out"),
        ("DEADLINE_EXCEEDED", CallError, "no answer from h:1 in time; .*it may have been carried"),
    ],
)
def test_failures_say_what_to_do(code: str, kind: type[Exception], says: str) -> None:
    error = explain(code, "text", "h:1", "Promote")
    assert type(error).__mro__[:2].count(kind) == 1  # itself, or a kind of it
    with pytest.raises(kind, match=says):
        raise error
    assert "carried out" not in str(explain(code, "text", "h:1", "GetStatus"))
    refused = explain("UNAVAILABLE", "Failed to connect to remote host", "h:1", "Promote")
    assert "carried out" not in str(refused)


def test_which_addresses_are_of_this_machine() -> None:
    for address in ("127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/run/s"):
        assert is_local(address)
    for address in ("10.0.0.1:1", "[2001:db8::1]:1", "example.org:1", "localhost.example:1", ":1"):
        assert not is_local(address)


@pytest.mark.parametrize("name", ["deploy", "traffic", "rollback", "status", "watch", "journal"])
def test_help_waits_for_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from server.cli import scoregate\n"
        f"try: scoregate(['{name}', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'google', 'numpy', 'rich', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def leaves(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    return [leaf for sub in command.commands.values() for leaf in leaves(sub, f"{name} {sub.name}")]


VERBS = [
    *("status", "watch", "models", "deploy", "traffic", "promote", "rollback", "retire"),
    *("thresholds", "overrides", "labels", "freeze", "unfreeze", "history", "journal"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_by_example(verb: str) -> None:
    assert verb in COMMANDS
    context = click.Context(scoregate)
    command = scoregate.get_command(context, verb)
    assert command is not None
    for name, leaf in leaves(command, verb):
        text = f"{inspect.cleandoc(leaf.help or '')}\n{leaf.epilog}"
        assert f"\n\b\nscoregate {name}" in f"\n{text}", name
        assert "xit codes: 0 " in text, name
        options = {option for param in leaf.params for option in param.opts}
        if "--why" in options:
            assert {"--expect", "--dry-run", "--json", "--who"} <= options, name
        if verb != "journal":
            assert {"--address", "--token-file", "--tls", "--timeout-s", "--json"} <= options, name


# ---------------------------------------------------------------------- output


def test_tables_line_up() -> None:
    assert lines.table([("a", "n", ""), ("bbb", "10", "x")], right=(1,)) == "a     n\nbbb  10  x"
    assert lines.table([]) == ""


def test_figures_for_people() -> None:
    assert [lines.percent(share) for share in (0, 1, 1250, 10_000)] == [
        "0 %", "0.01 %", "12.5 %", "100 %"
    ]  # fmt: skip
    assert [lines.size(n) for n in (0, 999, 1000, 999_949, 999_950, 2_500_000_000)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "2.5 GB"
    ]  # fmt: skip
    assert [lines.span(s) for s in (-1, 119, 120, 7199, 7200, 2 * 86400)] == [
        "0 s", "119 s", "2 min", "120 min", "2 h", "2 d"
    ]  # fmt: skip
    assert lines.utc(1_795_473_104_697) == "2026-11-23 22:31:44Z"


def plan(generation: int, *arms: tuple[str, str, int], frozen: str = "") -> pb.PlanDescription:
    """A plan of one model; sha256 and thresholds are those of the version."""
    made = [
        pb.ArmPlan(
            arm=arm,
            version=version,
            sha256=version.encode(),
            weight_basis_points=share,
            thresholds=[pb.ThresholdPlan(name="review", score=0.5)],
        )
        for arm, version, share in arms
    ]
    return pb.PlanDescription(
        generation=generation,
        default_model="fraud",
        models=[pb.ModelPlan(model="fraud", arms=made)],
        frozen=frozen,
    )


ONE = plan(7, ("champion", "1.0", 10_000))
TWO = plan(8, ("champion", "1.0", 9_000), ("canary", "2.0", 1_000))


def test_a_change_is_told_from_before_to_after() -> None:
    answer = pb.ChangeResponse(before=ONE, after=TWO, n_buckets_moved=1000, notes=["mind this"])
    assert render(answer).splitlines() == [
        "fraud  1.0  champion  100 %  ->  champion  90 %",
        "fraud  2.0  –             –  ->  canary    10 %",
        "generation 7 -> 8, 1,000 of 10,000 buckets moved",
        "note: mind this",
    ]


def test_a_dry_run_is_marked() -> None:
    after = pb.PlanDescription()
    after.CopyFrom(TWO)
    after.generation = 0
    text = render(pb.ChangeResponse(before=ONE, after=after, dry_run=True, n_buckets_moved=1000))
    assert text.startswith("dry run: this would happen, nothing was changed\nfraud  1.0")
    assert text.endswith("generation 7 stays; 1,000 of 10,000 buckets would move")


def test_what_changes_nothing_says_so() -> None:
    answer = pb.ChangeResponse(before=ONE, after=ONE, notes=["nothing to change"])
    assert render(answer) == "generation 7 stays\nnote: nothing to change"


def test_changes_without_traffic() -> None:
    after = plan(8, ("champion", "1.0", 10_000), frozen="look first")
    after.default_model = "other"
    [model] = after.models
    model.arms[0].thresholds[0].score = 0.25
    model.arms[0].thresholds[0].is_override = True
    model.labels["stable"] = "1.0"
    for i in range(12):
        model.overrides[f"k{i:02}"] = "champion"
    told = render(pb.ChangeResponse(before=ONE, after=after)).splitlines()
    assert told[0] == "threshold review of fraud 1.0 (champion): 0.5 -> 0.25"
    assert told[1] == "label stable of fraud: – -> 1.0"
    assert told[2] == "override k00 of fraud: – -> champion"
    assert told[12:] == [
        "and 2 more; --json shows all",
        "default model: fraud -> other",
        "changes are frozen: look first",
        "generation 7 -> 8, 0 of 10,000 buckets moved",
    ]
    back = render(pb.ChangeResponse(before=after, after=ONE)).splitlines()
    assert "threshold review of fraud 1.0 (champion): 0.25 -> 0.5, the bundle's own" in back
    assert "changes are allowed again" in back


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("deploy", '{"model":"","version":"2.0","traffic_basis_points":50}', "deploy 2.0 at 0.5 %"),
        (
            "traffic",
            '{"model":"m","basis_points":{"a":1,"b":9999}}',
            "traffic m a=0.01 % b=99.99 %",
        ),
        ("promote", '{"model":"","arm":""}', "promote"),
        ("rollback", '{"generation":0}', "rollback"),
        ("rollback", '{"generation":7}', "rollback to 7"),
        ("thresholds", '{"scores":{"review":0.25},"arm":"a"}', "thresholds a review=0.25"),
        ("thresholds", '{"scores":{}}', "thresholds reset"),
        ("overrides", '{"set":{"card":"a"},"clear":true}', "overrides cleared 1 set"),
        ("labels", '{"remove":["x","y"]}', "labels 2 removed"),
        ("default", '{"model":"limits"}', "default limits"),
        ("freeze", "", "freeze"),
        ("features", "no json", "features"),
    ],
)
def test_changes_in_a_few_words(verb: str, arguments: str, words: str) -> None:
    assert summary(pb.Change(verb=verb, arguments=arguments)) == words


def test_history_marks_what_nobody_proved() -> None:
    found = pb.GetHistoryResponse(has_more=True)
    found.changes.add(generation=8, who="ana", verb="promote", after=TWO, why="better")
    found.changes.add(generation=7, who="bo", verb="start", after=ONE, is_verified=True)
    assert render_history(found).splitlines() == [
        "8  1970-01-01 00:00:00Z  ana*  promote  (better)",
        "    fraud: champion 1.0 90 %, canary 2.0 10 %",
        "7  1970-01-01 00:00:00Z  bo    start",
        "    fraud: champion 1.0 100 %",
        "* said by the caller, not proven by a token",
        "older ones: --before 7",
    ]
    assert render_history(pb.GetHistoryResponse()) == "no changes"


def test_status_is_one_page() -> None:
    found = pb.GetStatusResponse(
        server_version="1", state=pb.SERVING_STATE_NOT_READY, state_reason="no model",
        plan_generation=8, default_model="fraud", resident_bytes=1_000_000, started_time_ms=1000,
        frozen="hm",
    )  # fmt: skip
    for arm in TWO.models[0].arms:
        found.models.add(
            model="fraud", version=arm.version, arm=arm.arm, engine="forest",
            weight_basis_points=arm.weight_basis_points, predictions=1234,
        )  # fmt: skip
    found.stores.add(table="online", kind="redis", state=pb.STORE_STATE_UNAVAILABLE, detail="gone")
    found.loops.add(index=0, open_connections=2, calls=3)
    newest = pb.Change(generation=8, who="ana", verb="freeze", why="hm", after=TWO)
    told = render_status(found, newest, 6000).splitlines()
    assert told == [
        "Scoregate 1: not ready, up for 5 s, 1.0 MB resident",
        "no model",
        "plan 8: freeze, by ana*, 1970-01-01 00:00:00Z (hm)",
        "changes are frozen: hm",
        "",
        "model            arm       version  traffic  calls  engine  memory",
        "fraud (default)  champion  1.0         90 %  1,234  forest     0 B",
        "fraud (default)  canary    2.0         10 %  1,234  forest     0 B",
        "",
        "door  address",
        "",
        "store   group  kind   state        records",
        "online  –      redis  unavailable        –  gone",
        "",
        "loop  connections  calls",
        "   0            2      3",
    ]
    # A change that came between the two calls is not told as the plan's.
    assert render_status(found, pb.Change(generation=9), 6000).splitlines()[2] == "plan 8"
    found.frozen = ""
    assert "frozen" not in render_status(found, newest, 6000)


def test_overrides_and_thresholds_line_up() -> None:
    plan = pb.PlanDescription()
    plan.CopyFrom(TWO)
    assert render_overrides(plan) == "no overrides: every key goes where its bucket says"
    # A key is whatever clients send: it must not move the cursor.
    plan.models[0].overrides.update({"card-4711": "canary", "a\n\x1b[2J": "champion"})
    assert render_overrides(plan).splitlines() == [
        "model  key         arm       version",
        "fraud  a\\n\\x1b[2J  champion  1.0",
        "fraud  card-4711   canary    2.0",
    ]
    first, second = plan.models[0].arms
    del first.thresholds[:], second.thresholds[:]
    first.thresholds.add(name="review", score=0.3, raw_score=-0.847298)
    first.thresholds.add(name="decline", score=0.85, raw_score=1.734601, is_override=True)
    assert render_thresholds(plan).splitlines() == [
        "model  arm       version  threshold  score  raw score  set by",
        "fraud  champion  1.0      review       0.3  -0.847298  bundle",
        "fraud  champion  1.0      decline     0.85     1.7346  operator",
        "fraud  canary    2.0      –              –          –  –",
    ]


def test_models_say_what_is_broken() -> None:
    found = pb.ListModelsResponse()
    model = found.models.add(model="fraud", is_default=True)
    model.versions.add(version="3", state=pb.MODEL_VERSION_STATE_BROKEN, detail="cut short")
    model.versions.add(
        version="2", state=pb.MODEL_VERSION_STATE_SERVING, arm="canary", labels=["stable"]
    )
    told = render_models(found).splitlines()
    assert told[1].split() == ["fraud", "(default)", "3", "broken", *"––––––"]
    assert told[2].split()[:7] == ["fraud", "(default)", "2", "serving", "canary", "0", "%"]
    assert told[3] == "fraud 3: cut short"
    assert "no versions" in render_models(pb.ListModelsResponse())


TRAFFIC = pb.TrafficReport(
    arms=[
        pb.ArmTraffic(
            model="fraud", arm="canary", version="2.0", calls_per_s=50, p50_us=1.25,
            decisions_per_s={"block": 1, "approve": 49},
        )
    ]
)  # fmt: skip


def test_events_as_lines() -> None:
    said = line(pb.WatchResponse(plan=TWO))
    assert said.endswith("Z plan 8: fraud: champion 1.0 90 %, canary 2.0 10 %")
    said = line(
        pb.WatchResponse(change=pb.Change(generation=9, verb="promote", who="a", after=ONE))
    )
    first, second = said.splitlines()
    assert first.endswith("Z change 9: promote, by a*")
    assert second.endswith("Z   fraud: champion 1.0 100 %")
    assert line(pb.WatchResponse(traffic=TRAFFIC)).endswith(
        "Z fraud canary 2.0: 50.0 calls/s, p50 1.2 µs, p99 –, degraded 0.0/s, errors 0.0/s; "
        "approve 49.0/s, block 1.0/s"
    )
    assert line(pb.WatchResponse(traffic=pb.TrafficReport())) == ""


def test_events_as_a_page() -> None:
    from rich.console import Console

    page = Page()
    page.take(pb.WatchResponse(plan=ONE))
    change = pb.Change(generation=8, verb="deploy", who="ana", after=TWO)
    page.take(pb.WatchResponse(change=change))
    page.take(pb.WatchResponse(traffic=TRAFFIC))
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(page.render())
    text = console.export_text()
    assert "plan 8" in text
    assert "change 8: deploy" in text
    rows = [row.split() for row in text.splitlines() if row.strip().startswith("fraud")]
    assert rows[0][:5] == ["fraud", "champion", "1.0", "90", "%"]
    assert rows[1][5] == "50.0"
