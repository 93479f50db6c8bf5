"""Every verb at the control port of a real server: what it does, refuses, and writes down."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2
from tests.support.clients import control, scoring
from tests.support.control import Refused, arms, bearer, make_certificate, refused, tokens_file
from tests.support.serving import MODEL, Serving, example_repository, run_serve

Code = grpc.StatusCode
CHAMPION = {"champion": ("1", 10_000)}
SPLIT = {"champion": ("1", 9_000), "canary": ("2", 1_000)}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving(settings={"models": [f"{MODEL}@1"]}) as serving:
        yield serving


class Operator:
    """Calls of one client, with its options."""

    def __init__(self, channel: grpc.Channel, *, token: str = "", **options: Any) -> None:
        self._stub = control(channel)
        self._metadata = bearer(token) if token else ()
        self.options = options

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**fields: Any) -> Any:
            kind = pb.DESCRIPTOR.services_by_name["Control"].methods_by_name[method].input_type
            if "options" in kind.fields_by_name:
                fields.setdefault("options", pb.ChangeOptions(**self.options))
            request = getattr(pb, kind.name)(**fields)
            return getattr(self._stub, method)(request, timeout=30, metadata=self._metadata)

        return call

    def fails(self, method: str, **fields: Any) -> Refused:
        """Return how a call fails; it has to."""
        return refused(lambda: getattr(self, method)(**fields))

    def plan(self) -> pb.PlanDescription:
        """Return what is in force."""
        stream = self.Watch()
        plan: pb.PlanDescription = next(stream).plan
        stream.cancel()
        return plan

    def newest(self) -> pb.Change:
        """Return the last change."""
        [change] = self.GetHistory(limit=1).changes
        found: pb.Change = change
        return found


@pytest.fixture
def operator(server: Serving) -> Iterator[Operator]:
    """Somebody who finds version 1 alone in force."""
    with grpc.insecure_channel(server.control) as channel:
        made = Operator(channel, who="ann")
        plan = made.plan()
        if plan.frozen:
            made.Freeze(frozen=False)
        if arms(plan) != CHAMPION or plan.models[0].overrides or plan.models[0].labels:
            first = made.GetHistory(limit=1000).changes[-1]
            made.Rollback(generation=first.generation)
        yield made


def score(server: Serving, key: str) -> scoring_pb2.ScoreResponse:
    with grpc.insecure_channel(server.fast) as channel:
        request = scoring_pb2.ScoreRequest(routing_key=key)
        request.named.values["amount"].number = 3.0
        answer: scoring_pb2.ScoreResponse = scoring(channel).Score(request, timeout=10)
        return answer


class TestVerbs:
    def test_deploy(self, server: Serving, operator: Operator) -> None:
        before = operator.plan()
        answer = operator.Deploy(version="2", traffic_basis_points=1000)
        assert answer.before == before
        assert arms(answer.after) == SPLIT
        assert answer.n_buckets_moved == 1000
        assert not answer.dry_run
        assert answer.after.generation > before.generation
        assert answer.after == operator.plan()
        assert score(server, "x").plan_generation == answer.after.generation
        for arm in answer.after.models[0].arms:
            assert [(t.name, t.score, t.is_override) for t in arm.thresholds] == [
                ("review", 0.3, False),
                ("decline", 0.8, False),
            ]
            assert len(arm.sha256) == 32

    def test_deploy_by_label_and_the_newest(self, operator: Operator) -> None:
        operator.SetLabels(set={"next": "2"})
        assert arms(operator.Deploy(version="next").after)["canary"] == ("2", 0)
        operator.Rollback()
        assert arms(operator.Deploy(arm="green").after)["green"] == ("2", 0)

    def test_traffic_by_arm_and_version(self, operator: Operator) -> None:
        operator.Deploy(version="2")
        answer = operator.SetTraffic(basis_points={"champion": 4000, "2": 6000})
        assert arms(answer.after) == {"champion": ("1", 4000), "canary": ("2", 6000)}
        assert answer.n_buckets_moved == 6000

    def test_promote_and_roll_back(self, server: Serving, operator: Operator) -> None:
        operator.Deploy(version="2", traffic_basis_points=1000)
        split = operator.plan()
        assert arms(operator.Promote().after) == {"champion": ("2", 10_000)}
        assert score(server, "x").version == "2"
        back = operator.Rollback()
        assert arms(back.after) == SPLIT
        assert back.after.models == split.models
        assert back.after.generation > split.generation

    def test_rollback_to_a_generation(self, operator: Operator) -> None:
        first = operator.plan().generation
        operator.Deploy(version="2", traffic_basis_points=1000)
        operator.Promote()
        assert arms(operator.Rollback(generation=first).after) == CHAMPION

    def test_thresholds_and_the_bundles_again(self, server: Serving, operator: Operator) -> None:
        decision = score(server, "x").decision
        answer = operator.SetThresholds(scores={"review": 1e-9, "decline": 1e-8})
        [arm] = answer.after.models[0].arms
        assert [(t.name, t.score, t.is_override) for t in arm.thresholds] == [
            ("review", 1e-9, True),
            ("decline", 1e-8, True),
        ]
        assert (score(server, "x").decision, decision) == ("decline", "approve")
        answer = operator.SetThresholds(arm="champion")
        assert [t.score for t in answer.after.models[0].arms[0].thresholds] == [0.3, 0.8]
        assert score(server, "x").decision == decision

    def test_overrides(self, server: Serving, operator: Operator) -> None:
        operator.Deploy(version="2")
        answer = operator.SetOverrides(set={"vip": "canary"})
        assert dict(answer.after.models[0].overrides) == {"vip": "canary"}
        assert (score(server, "vip").arm, score(server, "x").arm) == ("canary", "champion")
        operator.SetOverrides(set={"other": "2"}, clear=True)
        assert score(server, "vip").arm == "champion"
        operator.SetOverrides(remove=["other"])
        assert not operator.plan().models[0].overrides

    def test_labels(self, operator: Operator) -> None:
        answer = operator.SetLabels(set={"stable": "1", "next": "2"})
        assert dict(answer.after.models[0].labels) == {"stable": "1", "next": "2"}
        answer = operator.SetLabels(remove=["next"])
        assert dict(answer.after.models[0].labels) == {"stable": "1"}

    def test_retire(self, operator: Operator) -> None:
        operator.Deploy(version="2", traffic_basis_points=1000)
        assert arms(operator.Retire(arm="canary").after) == CHAMPION

    def test_freeze(self, operator: Operator) -> None:
        before = operator.plan()
        operator.Deploy(version="2")
        options = pb.ChangeOptions(why="a holiday")
        assert operator.Freeze(frozen=True, options=options).after.frozen == "a holiday"
        failed = operator.fails("Promote")
        assert failed.code is Code.ABORTED
        assert "a holiday" in failed.text
        # A rollback is allowed, and leaves changes frozen.
        assert operator.Rollback(generation=before.generation).after.frozen == "a holiday"
        assert operator.Freeze(frozen=False).after.frozen == ""
        operator.Deploy(version="2")

    def test_what_changes_nothing_is_told_so(self, operator: Operator) -> None:
        before = operator.plan()
        answer = operator.SetTraffic(basis_points={"champion": 10_000})
        assert answer.after == before
        assert "nothing to change" in answer.notes[-1]
        assert operator.plan() == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "fields", "code", "message"),
        [
            ("Deploy", {"version": "9"}, Code.NOT_FOUND, "there is 1, 2"),
            ("Deploy", {"model": "x"}, Code.NOT_FOUND, "no such directory"),
            ("Deploy", {"version": "../2"}, Code.INVALID_ARGUMENT, "not a name"),
            ("Deploy", {"model": "../x"}, Code.INVALID_ARGUMENT, "not a name"),
            ("Deploy", {"version": "2", "arm": "a b"}, Code.INVALID_ARGUMENT, "not a name"),
            (
                "Deploy",
                {"version": "2", "traffic_basis_points": 10_001},
                Code.INVALID_ARGUMENT,
                "10001",
            ),
            ("Deploy", {"version": "1"}, Code.INVALID_ARGUMENT, "takes part already"),
            ("SetTraffic", {"basis_points": {"1": 9_999}}, Code.INVALID_ARGUMENT, "add up"),
            ("SetTraffic", {}, Code.INVALID_ARGUMENT, "no weights given"),
            ("Promote", {}, Code.INVALID_ARGUMENT, "nothing to promote"),
            ("Promote", {"arm": "x"}, Code.INVALID_ARGUMENT, "arms: champion (1, 100 %)"),
            ("Promote", {"model": "x"}, Code.INVALID_ARGUMENT, "models that do: fraud"),
            ("Rollback", {"generation": 7}, Code.INVALID_ARGUMENT, "no generation 7"),
            ("Rollback", {"generation": 2**64 - 1}, Code.INVALID_ARGUMENT, "no generation"),
            ("SetThresholds", {"scores": {"nope": 0.5}}, Code.INVALID_ARGUMENT, "nope"),
            (
                "SetThresholds",
                {"scores": {"review": float("nan")}},
                Code.INVALID_ARGUMENT,
                "review",
            ),
            ("SetThresholds", {"scores": {"review": 0.9}}, Code.INVALID_ARGUMENT, "below"),
            ("SetOverrides", {"set": {"k": "x"}}, Code.INVALID_ARGUMENT, "no arm or version"),
            ("SetOverrides", {"remove": ["k"]}, Code.INVALID_ARGUMENT, "none to remove"),
            ("SetLabels", {"set": {"x": "9"}}, Code.NOT_FOUND, "there is 1, 2"),
            ("SetLabels", {"set": {"a b": "1"}}, Code.INVALID_ARGUMENT, "not a name"),
            ("Retire", {}, Code.INVALID_ARGUMENT, "default one"),
            ("Retire", {"arm": "1"}, Code.INVALID_ARGUMENT, "only arm"),
            ("GetHistory", {"limit": 1001}, Code.INVALID_ARGUMENT, "limit"),
            (
                "Deploy",
                {"options": pb.ChangeOptions(who="a\x1b[2J")},
                Code.INVALID_ARGUMENT,
                "options.who",
            ),
            (
                "Deploy",
                {"options": pb.ChangeOptions(why="x" * 1001)},
                Code.INVALID_ARGUMENT,
                "options.why",
            ),
        ],
    )
    def test_what_makes_no_sense_says_why_and_changes_nothing(
        self,
        operator: Operator,
        method: str,
        fields: dict[str, Any],
        code: grpc.StatusCode,
        message: str,
    ) -> None:
        before = operator.plan()
        failed = operator.fails(method, **fields)
        assert failed.code is code, failed.text
        assert message in failed.text
        assert operator.plan() == before

    def test_a_stale_generation(self, operator: Operator) -> None:
        seen = operator.plan().generation
        operator.Deploy(version="2")
        stale = pb.ChangeOptions(expected_generation=seen)
        before = operator.plan()
        for method, fields in (
            ("Promote", {}),
            ("Rollback", {}),
            ("SetTraffic", {"basis_points": {"1": 5000, "2": 5000}}),
        ):
            failed = operator.fails(method, options=stale, **fields)
            assert failed.code is Code.ABORTED
            assert str(seen) in failed.text
        assert operator.plan() == before
        fresh = pb.ChangeOptions(expected_generation=before.generation)
        assert arms(operator.Promote(options=fresh).after) == {"champion": ("2", 10_000)}

    def test_of_two_operators_at_once_one_wins(self, server: Serving, operator: Operator) -> None:
        operator.Deploy(version="2")
        seen = operator.plan().generation
        ended: list[str] = []
        at_once = threading.Barrier(2)

        def change(weight: int) -> None:
            with grpc.insecure_channel(server.control) as channel:
                other = Operator(channel, who=f"operator {weight}", expected_generation=seen)
                at_once.wait()
                try:
                    other.SetTraffic(basis_points={"1": 10_000 - weight, "2": weight})
                    ended.append("OK")
                except grpc.RpcError as error:
                    ended.append(error.code().name)

        threads = [threading.Thread(target=change, args=(weight,)) for weight in (1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ended) == ["ABORTED", "OK"]
        newest = operator.newest()
        weight = arms(newest.after)["canary"][1]
        assert newest.who == f"operator {weight}"
        assert newest.before_generation == seen


class TestDryRuns:
    @pytest.mark.parametrize(
        ("method", "fields"),
        [
            ("SetTraffic", {"basis_points": {"1": 5000, "2": 5000}}),
            ("Promote", {}),
            ("Rollback", {}),
            ("SetThresholds", {"scores": {"review": 0.4}}),
            ("SetOverrides", {"set": {"k": "canary"}}),
            ("SetLabels", {"set": {"stable": "1"}}),
            ("Retire", {"arm": "canary"}),
            ("Freeze", {"frozen": True}),
        ],
    )
    def test_say_what_would_happen_and_change_nothing(
        self, operator: Operator, method: str, fields: dict[str, Any]
    ) -> None:
        operator.Deploy(version="2", traffic_basis_points=1000)
        before, newest = operator.plan(), operator.newest()
        dry = getattr(operator, method)(options=pb.ChangeOptions(dry_run=True), **fields)
        assert (dry.dry_run, dry.before, dry.after.generation) == (True, before, 0)
        assert (operator.plan(), operator.newest()) == (before, newest)
        real = getattr(operator, method)(**fields)
        assert (real.dry_run, real.n_buckets_moved) == (False, dry.n_buckets_moved)
        dry.after.generation = real.after.generation
        if method == "Freeze":
            dry.after.frozen = real.after.frozen  # names who froze
        assert dry.after == real.after

    def test_of_a_deploy(self, operator: Operator) -> None:
        before = operator.plan()
        options = pb.ChangeOptions(dry_run=True)
        dry = operator.Deploy(version="2", traffic_basis_points=1000, options=options)
        assert (arms(dry.after), dry.n_buckets_moved) == (SPLIT, 1000)
        assert operator.plan() == before


class TestHistory:
    def test_says_who_what_and_why(self, server: Serving, operator: Operator) -> None:
        before = operator.plan()
        options = pb.ChangeOptions(who="bob", why="to see")
        made = operator.Deploy(version="2", traffic_basis_points=1000, options=options)
        change = operator.newest()
        assert (change.who, change.is_verified, change.why) == ("bob", False, "to see")
        assert (change.verb, change.before_generation) == ("deploy", before.generation)
        assert change.after == made.after
        assert json.loads(change.arguments) == {
            "model": "",
            "version": "2",
            "traffic_basis_points": 1000,
            "arm": "",
        }
        # Who says nothing is known by its address.
        operator.Promote(options=pb.ChangeOptions())
        assert operator.newest().who.startswith("ipv4:127.0.0.1:")

    def test_pages_hold_everything_once(self, operator: Operator) -> None:
        for _ in range(4):
            operator.Deploy(version="2")
            operator.Retire(arm="2")
        whole = operator.GetHistory(limit=1000)
        assert not whole.has_more
        generations = [change.generation for change in whole.changes]
        assert generations == sorted(set(generations), reverse=True)
        assert whole.changes[-1].verb == "start"
        paged: list[pb.Change] = []
        while True:
            before = paged[-1].generation if paged else 0
            page = operator.GetHistory(limit=3, before_generation=before)
            paged += page.changes
            if not page.has_more:
                break
            assert len(page.changes) == 3
        assert paged == list(whole.changes)
        assert not operator.GetHistory(before_generation=generations[-1]).changes
        newest = operator.GetHistory(limit=1, before_generation=2**64 - 1).changes
        assert [change.generation for change in newest] == generations[:1]

    def test_of_one_model(self, operator: Operator) -> None:
        operator.Deploy(version="2")
        operator.Freeze(frozen=True)
        operator.Freeze(frozen=False)
        changes = operator.GetHistory(limit=1000, model=MODEL).changes
        verbs = [change.verb for change in changes]
        assert verbs[0] == "deploy"
        assert verbs[-1] == "start"
        assert not {"freeze", "unfreeze"} & set(verbs)
        page = operator.GetHistory(limit=2, model=MODEL)
        assert page.has_more
        rest = operator.GetHistory(
            limit=1000, model=MODEL, before_generation=page.changes[-1].generation
        )
        assert [*page.changes, *rest.changes] == list(changes)
        assert not operator.GetHistory(model="nope").changes


def test_watch_sees_changes_and_traffic(server: Serving, operator: Operator) -> None:
    stream = operator.Watch(interval_ms=200)
    assert arms(next(stream).plan) == CHAMPION
    made = operator.Deploy(version="2", traffic_basis_points=5000)
    events: dict[str, Any] = {}
    for i in range(20):
        score(server, f"key-{i}")
    for event in stream:
        kind = event.WhichOneof("event")
        events[kind] = getattr(event, kind)
        rows = event.traffic.arms
        if {"change", "traffic"} <= set(events) and sum(row.calls_per_s for row in rows) > 0:
            break
        score(server, "key")
    stream.cancel()
    assert events["change"].after == made.after
    assert {(row.arm, row.version) for row in rows} == {("champion", "1"), ("canary", "2")}


def test_a_watch_that_is_not_read_loses_no_change_and_holds_nothing_up() -> None:
    n_changes = 40
    # Larger, together, than what flow control lets through unread.
    overrides = {f"key-{i:06}" * 10: "champion" for i in range(800)}
    with Serving() as server, grpc.insecure_channel(server.control) as channel:
        operator = Operator(channel)
        operator.SetOverrides(set=overrides)
        slow, never = operator.Watch(interval_ms=50), operator.Watch(interval_ms=50)
        assert next(slow).HasField("plan")
        made = [
            operator.SetOverrides(set={f"key-{i}": "champion"}).after.generation
            for i in range(n_changes)
        ]
        seen: list[int] = []
        while len(seen) < n_changes:
            event = next(slow)
            if event.HasField("change"):
                seen.append(event.change.generation)
        assert seen == made
        slow.cancel()
        # Pages end early where plans are large: clients take 4 MiB.
        page = operator.GetHistory(limit=1000)
        assert page.has_more
        assert page.ByteSize() < 4 << 20
        assert [change.generation for change in page.changes] == made[::-1][: len(page.changes)]
        server.signal()
        assert server.wait() == 0
        never.cancel()


def test_a_drain_ends_watches() -> None:
    with Serving() as server, grpc.insecure_channel(server.control) as channel:
        stream = Operator(channel).Watch()
        next(stream)
        server.signal()
        failed = refused(lambda: list(stream))
        assert failed.code is Code.UNAVAILABLE
        assert "draining" in failed.text
        assert server.wait() == 0


def test_tokens_and_tls_at_a_real_server(tmp_path: Path) -> None:
    secrets = tokens_file(tmp_path / "tokens.toml", alice="operate", bob="read")
    chain, key = make_certificate(tmp_path, "server")
    settings = {
        "models": [f"{MODEL}@1"],
        "control.address": "0.0.0.0",
        "control.tokens_file": str(tmp_path / "tokens.toml"),
        "control.tls_certificate_file": str(chain),
        "control.tls_key_file": str(key),
    }
    credentials = grpc.ssl_channel_credentials(chain.read_bytes())
    with Serving(settings=settings) as server:
        target = server.control.replace("0.0.0.0", "localhost")
        with grpc.secure_channel(target, credentials) as channel:
            alice = Operator(channel, token=secrets["alice"], who="mallory", why="to try")
            bob = Operator(channel, token=secrets["bob"])
            assert Operator(channel).fails("GetStatus").code is Code.UNAUTHENTICATED
            assert bob.fails("Deploy").code is Code.PERMISSION_DENIED
            assert arms(alice.Deploy(version="2", traffic_basis_points=1000).after) == SPLIT
            assert alice.fails("Freeze", frozen=True).code is Code.PERMISSION_DENIED
            change = bob.newest()
            assert (change.who, change.is_verified, change.why) == ("alice", True, "to try")
            # Revoked while the server runs.
            tokens_file(tmp_path / "tokens.toml", carol="admin")
            assert alice.fails("Promote").code is Code.UNAUTHENTICATED
        assert all(secret not in server.stderr() for secret in secrets.values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--control-tokens-file", "nope.toml"], "nope.toml: cannot be read: No such file"),
        (
            ["--control-tls-certificate-file", "nope.pem", "--control-tls-key-file", "nope.key"],
            "nope.pem: cannot be read: No such file",
        ),
    ],
)
def test_files_that_are_not_there_end_the_start(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    ports = ["--fast-port", "0", "--control-port", "0", "--sidecar-port", "0"]
    ended = run_serve(
        *("--repository", str(example_repository().path)),
        *("--rollout-journal", str(tmp_path / "journal.db"), *ports, *flags),
    )
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
