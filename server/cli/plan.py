"""The plan in force, as a server tells it: what lists of overrides and thresholds are read from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server.cli.remote import Remote, to_json
from server.errors import CallError, InputError

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb


def fetch(remote: Remote, model: str) -> pb.PlanDescription:
    """Return the plan in force, of one model, or of all where none is named.

    Raises
    ------
    InputError
        The model does not serve.
    CallError
        No plan is in force, or no answer.
    """
    from server.pb.scoregate.v1 import control_pb2 as pb

    # A watch begins with the plan that is in force, which the newest change need not be.
    plan = remote.first("Watch", pb.WatchRequest(), pb.WatchResponse).plan
    if not plan.models:
        raise CallError(f"{remote.address}: nothing is in force; `scoregate status` says why")
    if model:
        serving = [one.model for one in plan.models]
        if model not in serving:
            raise InputError(
                f"model {model!r} does not serve; models that do: {', '.join(serving)}"
            )
        for other in [one for one in plan.models if one.model != model]:
            plan.models.remove(other)
    return plan


def part_json(plan: pb.PlanDescription, fields: Sequence[str]) -> str:
    """Return a plan's generation and some fields of its models, as `to_json` writes them."""
    whole: dict[str, Any] = json.loads(to_json(plan, indent=None))
    models = [{field: one[field] for field in ("model", *fields)} for one in whole["models"]]
    part = {"generation": whole["generation"], "models": models}
    return json.dumps(part, indent=2, ensure_ascii=False)
