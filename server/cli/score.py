"""`scoregate score`: a first call to a running server, without writing code.

The file holds a ScoreRequest in protobuf's JSON mapping. Instead of `dense` or `named` it may
hold `features`: a flat object of names to numbers, booleans, strings or null.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import click
import grpc
from google.protobuf import json_format

from server.cli.explained import explain
from server.cli.remote import to_json
from server.errors import InputError
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2_grpc as pb_grpc


@click.command()
@click.argument("file", required=False)
@click.option(
    "--address",
    default="127.0.0.1:50051",
    show_default=True,
    metavar="HOST:PORT",
    help="The server's fast door or control port; unix:PATH for a Unix socket.",
)
@click.option("--model", default="", help="Model to ask, where the file names none.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option("--example", is_flag=True, help="Print a request for the served model, to edit.")
@click.option(
    "--timeout-s", default=5.0, show_default=True, type=click.FloatRange(min=0, min_open=True)
)
def score(
    file: str | None, address: str, model: str, as_json: bool, example: bool, timeout_s: float
) -> None:
    """Score the request in FILE (`-`: standard input) and print the answer.

    \b
    scoregate score --example > request.json
    scoregate score request.json

    FILE is JSON: {"features": {"amount": 12.5, "night": false}}, beside which any field of a
    ScoreRequest may stand (request_id, entities, routing_key, model, options). Exit codes: 0
    scored; 2 the request cannot be used; 1 no answer.
    """  # noqa: D301 - click looks for the backspace character itself
    if example == (file is not None):
        raise click.UsageError("give a FILE, or --example for one to start from")
    if file is not None:
        request = read_request(_read(file), "standard input" if file == "-" else file)
        request.model = request.model or model
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
        try:
            if example:
                description = stub.GetModel(pb.GetModelRequest(model=model), timeout=timeout_s)
                click.echo(json.dumps(example_request(description), indent=2))
                return
            answer = stub.Score(request, timeout=timeout_s)
        except grpc.RpcError as error:
            failed = cast("grpc.Call", error)
            raise explain(failed.code().name, failed.details(), address) from None
    click.echo(to_json(answer) if as_json else _to_text(answer))


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 at byte {error.start}") from None


def read_request(text: str, where: str) -> pb.ScoreRequest:
    """Parse a request in protobuf's JSON mapping, or with flat `features`.

    Parameters
    ----------
    text
        The JSON document.
    where
        Its name, for errors.

    Raises
    ------
    InputError
        Not JSON, not an object, an unknown field, or a value of the wrong type.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f'{where}: expected an object like {{"features": {{"amount": 12.5}}}}')
    features = document.pop("features", None)
    if features is not None and not isinstance(features, dict):
        raise InputError(f"{where}: features: expected an object of names to values")
    try:
        request = json_format.ParseDict(document, pb.ScoreRequest())
    except json_format.ParseError as error:
        # Further lines list the fields of the message: the example shows them better.
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{where}: not a ScoreRequest: {reason}; `scoregate score --example` shows one"
        ) from None
    if features is None:
        return request
    if request.WhichOneof("features"):
        raise InputError(f"{where}: features: give only one of features, dense, named")
    request.named.SetInParent()
    for name, value in features.items():
        _set_value(request.named.values[name], value, f"{where}: features.{name}")
    return request


def _set_value(target: pb.FeatureValue, value: object, where: str) -> None:
    match value:
        case bool():
            target.flag = value
        case int() | float():
            target.number = value
        case str():
            target.text = value
        case None:
            target.SetInParent()  # a null: the feature counts as missing
        case _:
            raise InputError(f"{where}: expected a number, true, false, a string or null")


def example_request(description: pb.GetModelResponse) -> dict[str, Any]:
    """Return a request that a model accepts, as a JSON document with flat features.

    Stored features are left to the stores: the entities that they are read for are named instead.
    """
    document: dict[str, Any] = {"request_id": "example-1", "model": description.model}
    arm = description.arms[0]
    wanted = [("payer", description.routing_entity)] if description.routing_entity else []
    wanted += [(group.role or "payer", group.entity) for group in arm.groups]
    entities = [
        {"role": role, "type": kind, "id": "example"} for role, kind in dict.fromkeys(wanted)
    ]
    if entities:
        document["entities"] = entities
    groups = {group.name for group in arm.groups}
    document["features"] = {
        feature.name: _example_value(feature)
        for feature in arm.features
        if feature.source not in groups
    }
    return document


def _example_value(feature: pb.FeatureDescription) -> object:
    default = feature.default_value
    if feature.type == pb.FEATURE_TYPE_BOOLEAN:
        return default == 1
    if feature.type == pb.FEATURE_TYPE_CATEGORICAL:
        known = 0 <= default < len(feature.vocabulary)
        return feature.vocabulary[int(default) if known else 0] if feature.vocabulary else None
    if not math.isfinite(default):
        low = feature.minimum if feature.HasField("minimum") else -math.inf
        high = feature.maximum if feature.HasField("maximum") else math.inf
        default = min(max(0.0, low), high)
    return float(format(default, ".6g"))


def _to_text(answer: pb.ScoreResponse) -> str:
    kind = pb.ScoreKind.Name(answer.score_kind).removeprefix("SCORE_KIND_").lower()
    counts = answer.source_counts
    threshold = f", at or above {answer.threshold:.6g}" if answer.HasField("threshold") else ""
    rows: Mapping[str, str] = {
        "request": answer.request_id,
        "decision": answer.decision,
        "score": f"{answer.score:.6g} ({kind})",
        "raw score": f"{answer.raw_score:.9g}{threshold}",
        "model": f"{answer.model} {answer.version} (arm {answer.arm}, "
        f"plan {answer.plan_generation})",
        "features": f"{counts.request} from the request, {counts.online} online, "
        f"{counts.batch} batch, {counts.default_value} by default",
        "bucket": f"{answer.bucket}" + (" (unsticky)" if answer.unsticky else ""),
    }
    lines = [f"{name:<10} {value}" for name, value in rows.items()]
    flags = [name for name in ("degraded", "cached", "explored") if getattr(answer, name)]
    if flags:
        lines.append(f"{'flags':<10} {', '.join(flags)}")
    if answer.provenance:
        names = [
            pb.FeatureSource.Name(source).removeprefix("FEATURE_SOURCE_").lower()
            for source in answer.provenance
        ]
        lines.append(f"{'sources':<10} {' '.join(names)}")
    return "\n".join(lines)
