"""The verbs against control ports: what they send, what comes back, and how they end."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.message import Message

from server.cli import scoregate
from server.config import ControlSettings
from server.errors import CallError, InputError, JournalError
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import control_pb2_grpc as pb_grpc
from server.rollout.journal import Journal
from server.rollout.opening import JOURNAL
from tests.support.control import ControlWorld, make_certificate, tokens_file
from tests.support.serving import MODEL, ROOT, copy_repository, run_serve
from tests.support.versions import add_version


def run(*arguments: str) -> str:
    """Run a command that has to succeed; return what it prints."""
    done = CliRunner().invoke(scoregate, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


# ---------------------------------------------------------------- what is sent


class Double(pb_grpc.ControlServicer):
    """Writes down what it is called with, and answers with nothing; promoting "slow" never ends."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Message, dict[str, Any]]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name[0].isupper():
            return super().__getattribute__(name)

        def answer(request: Message, context: grpc.ServicerContext) -> Message:
            self.calls.append((name, request, dict(context.invocation_metadata())))
            if getattr(request, "arm", "") == "slow":
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(30)
            if name == "LoadModel":
                return pb.LoadModelResponse()
            return pb.UnloadModelResponse() if name == "UnloadModel" else pb.ChangeResponse()

        return answer


@pytest.fixture(scope="module")
def listening() -> Iterator[tuple[Double, str]]:
    double = Double()
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_ControlServicer_to_server(double, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield double, f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def double(listening: tuple[Double, str], monkeypatch: pytest.MonkeyPatch) -> Double:
    made, address = listening
    made.calls.clear()
    monkeypatch.setenv("SCOREGATE_CONTROL", address)
    for name in ("SCOREGATE_TOKEN", "SCOREGATE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.mark.parametrize(
    ("typed", "method", "request_"),
    [
        ("deploy 2.0 --traffic 10", "Deploy",
         pb.DeployRequest(version="2.0", traffic_basis_points=1000)),
        ("deploy m 2.0 --traffic 0.05% --arm b", "Deploy",
         pb.DeployRequest(model="m", version="2.0", traffic_basis_points=5, arm="b")),
        ("traffic set a=70 b=29.99 c=0.01 --model m", "SetTraffic",
         pb.SetTrafficRequest(model="m", basis_points={"a": 7000, "b": 2999, "c": 1})),
        ("promote", "Promote", pb.PromoteRequest()),
        ("promote 2.0 --model m", "Promote", pb.PromoteRequest(model="m", arm="2.0")),
        ("rollback", "Rollback", pb.RollbackRequest()),
        ("rollback --to 1795473104697", "Rollback", pb.RollbackRequest(generation=1795473104697)),
        ("retire canary", "Retire", pb.RetireRequest(arm="canary")),
        ("retire --model m --whole-model", "Retire", pb.RetireRequest(model="m")),
        ("thresholds set review=0.4 block=.9 --arm b", "SetThresholds",
         pb.SetThresholdsRequest(arm="b", scores={"review": 0.4, "block": 0.9})),
        ("thresholds reset --model m", "SetThresholds", pb.SetThresholdsRequest(model="m")),
        ("overrides set k=a x=y=b", "SetOverrides",
         pb.SetOverridesRequest(set={"k": "a", "x=y": "b"})),
        ("overrides remove k x", "SetOverrides", pb.SetOverridesRequest(remove=["k", "x"])),
        ("overrides clear --model m", "SetOverrides",
         pb.SetOverridesRequest(model="m", clear=True)),
        ("labels set stable=1.0", "SetLabels", pb.SetLabelsRequest(set={"stable": "1.0"})),
        ("labels remove stable", "SetLabels", pb.SetLabelsRequest(remove=["stable"])),
        ("freeze", "Freeze", pb.FreezeRequest(frozen=True)),
        ("unfreeze", "Freeze", pb.FreezeRequest()),
        ("models default m", "SetDefaultModel", pb.SetDefaultModelRequest(model="m")),
        ("models load m 2.0", "LoadModel", pb.LoadModelRequest(model="m", version="2.0")),
        ("models unload 2.0", "UnloadModel", pb.UnloadModelRequest(version="2.0")),
    ],
)  # fmt: skip
def test_what_is_typed_is_sent(double: Double, typed: str, method: str, request_: Any) -> None:
    extra: list[str] = []
    if hasattr(request_, "options"):
        extra = ["--why", "so", "--expect", "7", "--dry-run", "--who", "ana@box"]
        request_.options.CopyFrom(
            pb.ChangeOptions(why="so", expected_generation=7, dry_run=True, who="ana@box")
        )
    run(*typed.split(), *extra)
    assert [(name, sent) for name, sent, _ in double.calls] == [(method, request_)]


def test_who_types_is_said(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ana")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    run("promote")
    monkeypatch.delenv("USER")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)  # in no list of users
    run("promote")
    assert [sent.options.who for _, sent, _ in double.calls] == ["ana@box", "4000000000@box"]  # type: ignore[attr-defined]


def test_the_token_is_sent(double: Double, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("promote")
    monkeypatch.setenv("SCOREGATE_TOKEN", " one\n")
    run("promote")
    (tmp_path / "token").write_text("two\n")
    run("promote", "--token-file", str(tmp_path / "token"))
    monkeypatch.setenv("SCOREGATE_TOKEN_FILE", str(tmp_path / "token"))
    run("promote")
    tokens = [metadata.get("authorization") for _, _, metadata in double.calls]
    assert tokens == [None, "Bearer one", "Bearer two", "Bearer two"]


@pytest.mark.parametrize(
    ("typed", "token", "says"),
    [
        ("--address 192.0.2.1:1", "x", "cross the network to 192.0.2.1:1 .* --tls"),
        ("", "two words", "SCOREGATE_TOKEN: not a token"),
        ("--token-file missing", "", "missing: cannot be read: No such file"),
        ("--token-file empty", "", "empty: empty; `scoregate token new`"),
        ("--tls-certificate empty", "", "--tls-certificate and --tls-key belong together"),
    ],
)
def test_tokens_and_certificates_that_cannot_be(
    double: Double,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    typed: str,
    token: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    monkeypatch.setenv("SCOREGATE_TOKEN", token)
    with pytest.raises(InputError, match=says):
        run("promote", *typed.split())
    assert double.calls == []


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("deploy 2.0", "Missing option '--traffic'"),
        ("deploy 2.0 --traffic 101", "'101' is no percentage"),
        ("deploy a b c --traffic 1", "give [MODEL] VERSION"),
        ("traffic set a", "'a' is not ARM=PERCENT"),
        ("traffic set a=x", "a: 'x' is no percentage"),
        ("thresholds set a=x", "a: 'x' is not a number"),
        ("retire", "give an ARM, or --model MODEL --whole-model"),
        ("retire --whole-model", "say which with --model"),
        ("freeze", "say --why"),
        ("models default --dry-run", "give a MODEL: without one, nothing is changed"),
        ("rollback --to x", "'x' is no generation"),
        ("rollback --expect -1", "'-1' is no generation"),
    ],
)
def test_usage(double: Double, typed: str, says: str) -> None:
    done = CliRunner().invoke(scoregate, typed.split())
    assert done.exit_code == 2
    assert says in done.stderr
    assert double.calls == []


# --------------------------------------------------------------- a real server


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlWorld]:
    with ControlWorld(copy_repository(tmp_path / "repository")) as made:
        monkeypatch.setenv("SCOREGATE_CONTROL", f"127.0.0.1:{made.port.port}")
        yield made


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_there_and_back_again(world: ControlWorld, tmp_path: Path) -> None:
    first = json.loads(run("status", "--json"))["plan_generation"]
    dry = run("deploy", "2", "--traffic", "10", "--dry-run")
    assert dry.startswith("dry run:")
    told = run("deploy", "2", "--traffic", "10", "--why", "try it", "--who", "ana@box")
    assert dry.splitlines()[1:3] == told.splitlines()[:2]
    assert told.splitlines()[1] == "fraud  2  –             –  ->  canary    10 %"
    answer = json.loads(run("traffic", "set", "champion=50", "canary=50", "--json"))
    assert answer["n_buckets_moved"] == 4000
    assert [arm["weight_basis_points"] for arm in answer["after"]["models"][0]["arms"]] == [
        5000
    ] * 2
    run("thresholds", "set", "review=0.35", "--arm", "canary")
    run("overrides", "set", "card=7=canary")
    run("labels", "set", "stable=1")
    assert "stable" in run("models", "list")
    run("promote")
    run("freeze", "--why", "look")
    assert json.loads(run("status", "--json"))["frozen"] == "look"
    assert run("status").splitlines()[2] == "changes are frozen: look"
    told = run("rollback", "--to", first)
    assert told.splitlines()[0] == "fraud  2  champion  100 %  ->  –             –"
    run("unfreeze")
    told = run("history", "-n", "100")
    assert told.count("\n    fraud: ") == 10
    assert "deploy 2 at 10 %  (try it)" in told
    assert "ana@box*" in told
    assert "thresholds canary review=0.35" in told
    assert "card=7" not in told  # somebody's key
    page = run("history", "-n", "2").splitlines()
    assert page[-1] == f"older ones: --before {page[-4].split()[0]}"
    found = json.loads(run("history", "-n", "3", "--json"))
    assert [change["verb"] for change in found["changes"]] == ["unfreeze", "rollback", "freeze"]
    status = run("status")
    assert "changes are frozen" not in status
    assert "fraud (default)  champion  1          100 %" in status
    assert "stable" not in run("models", "list")  # it was no label then

    # The journal, while its server has it open.
    journal = tmp_path / "repository" / JOURNAL
    n_changes = len(run("history", "-n", "100", "--json").split('"verb"')) - 1
    assert f": ok: {n_changes} changes; the newest: unfreeze" in run(
        "journal", "verify", str(journal)
    )
    exported = tmp_path / "changes.jsonl"
    assert run("journal", "export", str(journal), "--out", str(exported)).endswith(" changes\n")
    assert run("journal", "export", str(journal)) == exported.read_text()
    verbs = [json.loads(line)["verb"] for line in exported.read_text().splitlines()]
    assert verbs[0] == "start"
    assert verbs[-1] == "unfreeze"
    assert len(verbs) == n_changes
    assert "ok" in run("journal", "verify", str(exported))


def test_models_come_and_go(world: ControlWorld) -> None:
    assert "2: loaded in " in run("models", "load", "2")
    listed = run("models", "list", MODEL).splitlines()
    assert listed[1].split()[2:4] == ["2", "loaded"]
    assert listed[2].split()[2:5] == ["1", "serving", "champion"]
    assert "2: unloaded" in run("models", "unload", "2")
    [model] = json.loads(run("models", "list", "--json"))["models"]
    assert model["versions"][0]["state"] == "MODEL_VERSION_STATE_AVAILABLE"


def test_the_default_model_is_another_and_back(world: ControlWorld, tmp_path: Path) -> None:
    add_version(tmp_path / "repository", "7", "2", model="limits")
    assert run("models", "default") == "fraud\n"
    run("deploy", "limits", "7", "--traffic", "100")
    assert run("models", "default", "limits", "--dry-run").splitlines()[:2] == [
        "dry run: this would happen, nothing was changed",
        "default model: fraud -> limits",
    ]
    assert json.loads(run("models", "default", "--json")) == {"default_model": "fraud"}
    told = run("models", "default", "limits", "--why", "asked for")
    assert told.splitlines()[0] == "default model: fraud -> limits"
    assert run("models", "default") == "limits\n"
    assert "limits (default)  7" in run("models", "list")
    assert "default limits  (asked for)" in run("history", "-n", "1")
    assert "note: requests that name no model go to fraud again" in run("rollback")
    assert run("models", "default") == "fraud\n"


def test_overrides_and_thresholds_are_listed(world: ControlWorld, tmp_path: Path) -> None:
    assert run("overrides", "list").startswith("no overrides")
    add_version(tmp_path / "repository", "7", "2", model="limits")
    run("deploy", "limits", "7", "--traffic", "100")
    run("deploy", "2", "--traffic", "10")
    run("overrides", "set", "card-9=canary", "b=champion")
    run("overrides", "set", "café=7", "--model", "limits")
    assert [row.split() for row in run("overrides", "list").splitlines()] == [
        ["model", "key", "arm", "version"],
        ["fraud", "b", "champion", "1"],
        ["fraud", "card-9", "canary", "2"],
        ["limits", "café", "champion", "7"],
    ]
    generation = json.loads(run("status", "--json"))["plan_generation"]
    assert json.loads(run("overrides", "list", "limits", "--json")) == {
        "generation": generation,
        "models": [{"model": "limits", "overrides": {"café": "champion"}}],
    }
    run("thresholds", "set", "review=0.35", "--arm", "canary")
    told = [row.split() for row in run("thresholds", "show", MODEL).splitlines()]
    assert told[0][:5] == ["model", "arm", "version", "threshold", "score"]
    assert [(row[1], row[3], row[4], row[6]) for row in told[1:]] == [
        ("champion", "review", "0.3", "bundle"),
        ("champion", "decline", "0.8", "bundle"),
        ("canary", "review", "0.35", "operator"),
        ("canary", "decline", "0.8", "bundle"),
    ]
    found = json.loads(run("thresholds", "show", "--json"))
    assert [model["model"] for model in found["models"]] == ["fraud", "limits"]
    canary = found["models"][0]["arms"][1]
    assert [(t["name"], t["is_override"]) for t in canary["thresholds"]] == [
        ("review", True),
        ("decline", False),
    ]


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("mod", {"models"}),
        ("models d", {"default"}),
        ("models default --ex", {"--expect"}),
        ("overrides l", {"list"}),
        ("thresholds sh", {"show"}),
        ("journal set", {"set-aside"}),
    ],
)
def test_a_shell_completes(typed: str, offers: set[str]) -> None:
    words = typed.split()
    made = {"COMP_WORDS": f"scoregate {typed}", "COMP_CWORD": str(len(words))}
    code = "from server.cli import scoregate; scoregate(prog_name='scoregate')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "_SCOREGATE_COMPLETE": "bash_complete", **made},
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offers


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        ("deploy 9 --traffic 10", 2, "NOT_FOUND: "),
        ("deploy 1 --traffic 10", 2, "INVALID_ARGUMENT: model fraud: version 1 takes part already"),
        ("traffic set champion=50", 2, "INVALID_ARGUMENT: .*add up to 10000"),
        ("models unload 1", 2, "version 1 serves"),
        ("promote --expect 7", 1, "ABORTED: generation .* is in force"),
        ("rollback", 2, "no plan before"),
        ("models default limits", 2, "model 'limits' does not serve; models that do: fraud"),
        ("models default a/b", 2, "INVALID_ARGUMENT: model: 'a/b' is not a name"),
        ("overrides list limits", 2, "model 'limits' does not serve; models that do: fraud"),
        ("thresholds show limits", 2, "model 'limits' does not serve"),
    ],
)
def test_exit_codes(world: ControlWorld, typed: str, code: int, says: str) -> None:
    kind = {1: CallError, 2: InputError}[code]
    with pytest.raises(kind, match=says):
        run(*typed.split())
    done = process(*typed.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("scoregate: ")
    assert done.stderr.count("\n") == 1


def test_nobody_there_and_nobody_in_time(listening: tuple[Double, str]) -> None:
    done = process("rollback", "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "no answer from 127.0.0.1:1" in done.stderr
    assert "is `scoregate serve` running there?" in done.stderr
    assert done.stderr.count("\n") == 1
    with pytest.raises(CallError, match=r"in time.* look at `scoregate history`"):
        run("promote", "slow", "--address", listening[1], "--timeout-s", "0.2")


def test_watch_sees_a_change(world: ControlWorld) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "server", "watch", "--json", "--interval-s", "0.1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with watching:
        assert watching.stdout is not None
        events = (json.loads(text) for text in watching.stdout)
        assert "plan" in next(events)
        run("deploy", "2", "--traffic", "10")
        change = next(event["change"] for event in events if "change" in event)
        assert change["verb"] == "deploy"
        arms = next(
            event["traffic"]["arms"]
            for event in events
            if len(event.get("traffic", {}).get("arms", ())) == 2
        )
        assert {arm["arm"] for arm in arms} == {"champion", "canary"}
        watching.send_signal(2)
        _, err = watching.communicate(timeout=30)
        assert (watching.returncode, err) == (0, "")


def test_watch_in_lines_ends_by_itself(world: ControlWorld) -> None:
    told = run("watch", "--seconds", "0.3", "--interval-s", "0.1").splitlines()
    assert "Z plan " in told[0]
    assert "fraud champion 1: 0.0 calls/s, p50 –" in told[1]


def test_tokens_and_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = make_certificate(tmp_path, "server")
    secrets = tokens_file(tmp_path / "tokens.json", ana="operate", eve="read")
    settings = ControlSettings(
        port=0,
        tokens_file=str(tmp_path / "tokens.json"),
        tls_certificate_file=str(chain),
        tls_key_file=str(key),
    )

    def channel(port: int) -> grpc.Channel:
        return grpc.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(chain.read_bytes())
        )

    repository = copy_repository(tmp_path / "repository")
    with ControlWorld(repository, settings, target=channel) as world:
        monkeypatch.setenv("SCOREGATE_CONTROL", f"localhost:{world.port.port}")
        tls = ("--tls-ca", str(chain))
        monkeypatch.setenv("SCOREGATE_TOKEN", secrets["ana"])
        run("deploy", "2", "--traffic", "10", *tls)
        newest = run("history", "-n", "1", *tls).splitlines()
        assert " ana  deploy 2 at 10 %" in newest[0]  # the token's name, whoever types
        assert "not proven" not in newest[-1] or "older" in newest[-1]
        with pytest.raises(CallError, match="PERMISSION_DENIED: Freeze needs the role admin"):
            run("freeze", "--why", "x", *tls)
        monkeypatch.setenv("SCOREGATE_TOKEN", "")
        with pytest.raises(CallError, match="UNAUTHENTICATED"):
            run("status", *tls)
        with pytest.raises(CallError, match="no answer from localhost"):
            run("status", "--timeout-s", "5")  # not the language that it speaks


# ------------------------------------------------------------ journals on disk


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    with ControlWorld(copy_repository(tmp_path / "repository")):
        pass
    return tmp_path / "repository" / JOURNAL


def test_a_damaged_journal_is_told_by_its_own_name(kept: Path) -> None:
    data = kept.read_bytes()
    kept.write_bytes(data.replace(b'"verb":"start"', b'"verb":"stArt"'))
    with pytest.raises(JournalError, match="damaged") as caught:
        run("journal", "verify", str(kept))
    assert str(kept) in str(caught.value)
    assert "/scoregate-journal-" not in str(caught.value)
    kept.write_bytes(data[: len(data) // 2])
    with pytest.raises(JournalError, match=str(kept)):
        run("journal", "verify", str(kept))


def test_reading_a_journal_leaves_it_alone(kept: Path) -> None:
    before = kept.read_bytes()
    run("journal", "verify", str(kept))
    run("journal", "export", str(kept))
    assert kept.read_bytes() == before
    with Journal(kept) as journal:
        assert journal.verify() == 1


@pytest.mark.parametrize("command", ["verify", "export"])
def test_what_is_no_journal(tmp_path: Path, command: str) -> None:
    other = tmp_path / "other"
    other.write_text("hello")
    for file, says in ((other, "neither a journal|not a journal"), (tmp_path / "no", "No such")):
        with pytest.raises(InputError, match=says):
            run("journal", command, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_altered_export(kept: Path, tmp_path: Path) -> None:
    exported = tmp_path / "changes.jsonl"
    run("journal", "export", str(kept), "--out", str(exported))
    exported.write_text(exported.read_text().replace('"who":"scoregate"', '"who":"somebody"'))
    with pytest.raises(JournalError, match=r"changes\.jsonl: line 1 of the export does not match"):
        run("journal", "verify", str(exported))
    with pytest.raises(InputError, match="cannot be written"):
        run("journal", "export", str(kept), "--out", str(tmp_path / "no" / "x"))


def test_a_journal_torn_in_the_middle_is_set_aside_and_the_server_starts(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "repository")
    file = repository / JOURNAL
    with ControlWorld(repository) as world:
        # Enough changes that their pages fill the middle of the file.
        for i in range(40):
            world.control.SetLabels(pb.SetLabelsRequest(set={f"label-{i}": "1"}))
        last = world.rollout.generation
        with pytest.raises(JournalError, match=f"in use by process {os.getpid()}: stop that serv"):
            run("journal", "set-aside", str(file))
    with pytest.raises(InputError, match=r"is whole: a server can start with it\. Give --force"):
        run("journal", "set-aside", str(file))
    whole = file.read_bytes()
    torn = whole[: len(whole) // 2]
    file.write_bytes(torn)

    done = run_serve("--repository", str(repository), SCOREGATE_ROLLOUT_JOURNAL=str(file))
    assert done.returncode == 1
    [how] = re.findall(r"`scoregate (journal set-aside .*?)`", done.stderr)
    told = run(*how.split()).splitlines()
    aside = Path(told[0].partition(": moved aside, to ")[2])
    assert aside.read_bytes() == torn
    assert told[-3].startswith("The next start finds no history")
    assert not file.exists()
    with ControlWorld(repository) as world:
        assert world.rollout.generation > last
        assert len(world.rollout.journal.entries(9)) == 1


def test_a_hole_that_a_start_does_not_see_is_damage_too(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "repository")
    file = repository / JOURNAL
    with ControlWorld(repository) as world:
        for i in range(40):
            world.control.SetLabels(pb.SetLabelsRequest(set={f"label-{i}": "1"}))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle - 8192 : middle + 8192] = bytes(16384)
    file.write_bytes(data)
    # The newest entry is whole, so the server starts; what is older, it says, is not.
    with ControlWorld(repository) as world:
        assert len(world.rollout.state().models[0].labels) == 40
        with pytest.raises(CallError, match=f"DATA_LOSS: .*`scoregate journal set-aside {file}`"):
            run("history", "-n", "100", "--address", f"127.0.0.1:{world.port.port}")
        # What the runbook says to do in the meantime.
        run("deploy", "2", "--traffic", "100", "--address", f"127.0.0.1:{world.port.port}")
        run("promote", "2", "--address", f"127.0.0.1:{world.port.port}")
    assert "moved aside" in run("journal", "set-aside", str(file))


def test_what_is_whole_is_set_aside_by_force_and_what_is_no_journal_never(
    kept: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is whole"):
        run("journal", "set-aside", str(kept))
    moved = run("journal", "set-aside", str(kept), "--force").splitlines()[0].split()[-1]
    assert "ok: 1 changes" in run("journal", "verify", moved)
    (tmp_path / "model.onnx").write_bytes(b"a model")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, says in (
        ("model.onnx", "not a journal"),
        ("other.db", "not a journal"),
        ("missing", "nothing there"),
    ):
        with pytest.raises(InputError, match=f"{name}: {says}; it is <repository>/.scoregate/jour"):
            run("journal", "set-aside", str(tmp_path / name), "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("left", [b"", b"x" * 5000])
def test_what_a_disk_left_of_a_journal_is_set_aside(kept: Path, left: bytes) -> None:
    kept.write_bytes(left)
    moved = run("journal", "set-aside", str(kept)).splitlines()[0].split()[-1]
    assert Path(moved).read_bytes() == left


def test_a_share_is_explored_and_back(world: ControlWorld) -> None:
    assert run("explore", "show").split() == ["model", "explored", "share", "fraud", "0"]
    told = run("explore", "set", "0.02", "--why", "labels for the next training")
    assert told.splitlines()[0] == "fraud: explored share: 0 -> 0.02"
    assert json.loads(run("explore", "show", "--json"))["models"][0]["explore_share"] == 0.02
    assert run("rollback").splitlines()[0] == "fraud: explored share: 0.02 -> 0"
    refused = CliRunner().invoke(scoregate, ["explore", "set", "0.9"])
    assert refused.exit_code != 0
    assert "it is 0 to 0.5" in str(refused.exception)
