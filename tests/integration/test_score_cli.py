"""`scoregate score`: what a first call shows, and what each mistake is answered with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.score import example_request, read_request
from server.errors import InputError
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.serving import FEATURES, MODEL, ROOT, Serving


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving() as serving:
        yield serving


def score(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "score", *args],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestCommand:
    @pytest.mark.parametrize("door", ["fast", "control"])
    def test_the_example_can_be_scored(self, server: Serving, tmp_path: Path, door: str) -> None:
        address = getattr(server, door)
        example = score("--example", "--address", address)
        assert example.returncode == 0, example.stderr
        assert set(json.loads(example.stdout)["features"]) == set(FEATURES)
        file = tmp_path / "request.json"
        file.write_text(example.stdout, "utf-8")
        done = score(str(file), "--address", address)
        assert done.returncode == 0, done.stderr
        rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        assert rows["request"] == "example-1"
        assert rows["decision"] in {"approve", "review", "decline"}
        assert rows["model"].startswith(f"{MODEL} 2 (arm champion")
        assert rows["features"].startswith("4 from the request, ")

    def test_standard_input_and_json(self, server: Serving) -> None:
        text = '{"request_id": "r-1", "features": {"amount": 3, "night": true}}'
        done = score("-", "--json", "--address", server.fast, stdin=text)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["request_id"] == "r-1"
        assert answer["source_counts"]["request"] == 2
        assert 0 < answer["score"] < 1

    def test_nobody_there(self) -> None:
        done = score("-", "--address", "127.0.0.1:1", stdin='{"features": {}}')
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "no answer from 127.0.0.1:1" in done.stderr
        assert "is `scoregate serve` running there?" in done.stderr

    def test_a_request_that_the_server_refuses(self, server: Serving) -> None:
        done = score("-", "--address", server.fast, stdin='{"features": {"ammount": 1}}')
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"{server.fast} answered INVALID_ARGUMENT: " in done.stderr
        assert "ammount" in done.stderr
        done = score("--example", "--model", "nope", "--address", server.fast)
        assert done.returncode == 2
        assert "answered NOT_FOUND" in done.stderr

    def test_usage(self, tmp_path: Path) -> None:
        for args in ([], ["--example", "file.json"]):
            done = score(*args)
            assert done.returncode == 2
            assert "give a FILE, or --example" in done.stderr
        done = score(str(tmp_path / "nope.json"))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith("nope.json: cannot be read: No such file or directory\n")
        (tmp_path / "latin.json").write_bytes(b'"\xe9"')
        assert "latin.json: not UTF-8 at byte 1" in score(str(tmp_path / "latin.json")).stderr


class TestReading:
    def test_flat_features(self) -> None:
        request = read_request(
            '{"features": {"a": 1, "b": 2.5, "c": true, "d": "x", "e": null}, "routingKey": "k"}',
            "f",
        )
        values = request.named.values
        assert (values["a"].number, values["b"].number) == (1.0, 2.5)
        assert values["c"].WhichOneof("kind") == "flag"
        assert values["d"].text == "x"
        assert values["e"].WhichOneof("kind") is None
        assert len(values) == 5
        assert request.routing_key == "k"

    def test_no_feature_at_all_is_a_form_too(self) -> None:
        assert read_request('{"features": {}}', "f").WhichOneof("features") == "named"

    def test_the_whole_json_mapping(self) -> None:
        text = '{"dense": {"layout": "18446744073709551615", "values": [1, "NaN"]}}'
        request = read_request(text, "f")
        assert request.dense.layout == 2**64 - 1
        assert len(request.dense.values) == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "f: not valid JSON: "),
            ("[]", "f: expected an object like"),
            ('{"features": [1]}', "f: features: expected an object"),
            ('{"features": {"a": [1]}}', "f: features.a: expected a number"),
            ('{"features": {}, "named": {}}', "f: features: give only one of"),
            ('{"featurs": {}}', 'f: not a ScoreRequest: .*"featurs"'),
            ('{"request_id": 5}', "f: not a ScoreRequest: "),
        ],
    )
    def test_refusals(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read_request(text, "f")
        assert "\n" not in str(caught.value)


def test_example_values_are_allowed_ones() -> None:
    nan = float("nan")
    description = pb.GetModelResponse(model="m", routing_entity="card")
    arm = description.arms.add()
    arm.features.add(name="plain", type=pb.FEATURE_TYPE_NUMERIC, default_value=0.25)
    arm.features.add(name="low", type=pb.FEATURE_TYPE_NUMERIC, default_value=nan, minimum=3.0)
    arm.features.add(name="high", type=pb.FEATURE_TYPE_NUMERIC, default_value=nan, maximum=-2.0)
    arm.features.add(name="flag", type=pb.FEATURE_TYPE_BOOLEAN, default_value=nan)
    vocabulary = ["BE", "FR"]
    for name, default in (("known", 1.0), ("unknown", nan)):
        arm.features.add(
            name=name,
            type=pb.FEATURE_TYPE_CATEGORICAL,
            default_value=default,
            vocabulary=vocabulary,
        )
    document = example_request(description)
    assert document["features"] == {
        "plain": 0.25,
        "low": 3.0,
        "high": -2.0,
        "flag": False,
        "known": "FR",
        "unknown": "BE",
    }
    assert document["entities"] == [{"role": "payer", "type": "card", "id": "example"}]
    assert read_request(json.dumps(document), "f").model == "m"


def test_an_example_leaves_stored_features_to_the_stores() -> None:
    numeric = pb.FEATURE_TYPE_NUMERIC
    arm = pb.ArmDescription(
        features=[
            pb.FeatureDescription(name="amount", type=numeric, source="request"),
            pb.FeatureDescription(name="n_day", type=numeric, source="customer"),
            pb.FeatureDescription(name="risk", type=numeric, source="terminal"),
        ],
        groups=[
            pb.GroupDescription(name="customer", entity="customer"),
            pb.GroupDescription(name="terminal", entity="shop", role="payee"),
        ],
    )
    example = example_request(pb.GetModelResponse(routing_entity="customer", arms=[arm]))
    assert set(example["features"]) == {"amount"}
    assert example["entities"] == [
        {"role": "payer", "type": "customer", "id": "example"},
        {"role": "payee", "type": "shop", "id": "example"},
    ]
