"""The RPCs that change what serves: from a request to a verb, and its outcome back.

Names that cannot be are refused here, with INVALID_ARGUMENT; everything else is decided by the
verbs, under the rollout's lock.
"""

from __future__ import annotations

from server.control.convert import check_names
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.change import Author, Outcome
from server.rollout.verbs import Verbs


class Changes:
    """One method per RPC; each raises what its verb raises.

    Parameters
    ----------
    verbs
        What changes.
    """

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def deploy(self, request: pb.DeployRequest, author: Author) -> Outcome:
        """Let a version take part."""
        check_names(model=request.model, version=request.version, arm=request.arm)
        return self._verbs.deploy(
            author, request.model, request.version, request.traffic_basis_points, request.arm
        )

    def set_traffic(self, request: pb.SetTrafficRequest, author: Author) -> Outcome:
        """Set weights."""
        return self._verbs.set_traffic(author, request.model, dict(request.basis_points))

    def promote(self, request: pb.PromoteRequest, author: Author) -> Outcome:
        """Give one arm all the traffic."""
        return self._verbs.promote(author, request.model, request.arm)

    def rollback(self, request: pb.RollbackRequest, author: Author) -> Outcome:
        """Put an earlier plan in force again."""
        return self._verbs.rollback(author, request.generation)

    def set_thresholds(self, request: pb.SetThresholdsRequest, author: Author) -> Outcome:
        """Set thresholds, or give the bundle's back."""
        return self._verbs.set_thresholds(author, request.model, request.arm, dict(request.scores))

    def set_overrides(self, request: pb.SetOverridesRequest, author: Author) -> Outcome:
        """Pin routing keys."""
        return self._verbs.set_overrides(
            author, request.model, dict(request.set), list(request.remove), clear=request.clear
        )

    def set_labels(self, request: pb.SetLabelsRequest, author: Author) -> Outcome:
        """Name versions."""
        labels = dict(request.set)
        for label, version in labels.items():
            check_names(label=label, version=version)
        return self._verbs.set_labels(author, request.model, labels, list(request.remove))

    def retire(self, request: pb.RetireRequest, author: Author) -> Outcome:
        """Take an arm or a model out."""
        return self._verbs.retire(author, request.model, request.arm)

    def set_default_model(self, request: pb.SetDefaultModelRequest, author: Author) -> Outcome:
        """Choose the model of requests that name none."""
        check_names(model=request.model)
        return self._verbs.set_default_model(author, request.model)

    def set_exploration(self, request: pb.SetExplorationRequest, author: Author) -> Outcome:
        """Let a share of what a model would stop pass."""
        return self._verbs.set_exploration(author, request.model, request.share)

    def freeze(self, request: pb.FreezeRequest, author: Author) -> Outcome:
        """Refuse changes, or allow them again."""
        return self._verbs.freeze(author, frozen=request.frozen)
