"""What the server says of drift while the demo runs, and when that changed.

Asked over the control port (GetDrift), as `scoregate drift report` asks. Told as JSON: numbers that
are not known yet are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grpc

from server.pb.scoregate.v1 import control_pb2 as pb

TIMEOUT_S = 0.4
TOP_FEATURES = 3
MOST_CHANGES = 100


class DriftProbe:
    """Asks now and then, and remembers every change of a version's state.

    Parameters
    ----------
    get_drift : callable
        The control port's GetDrift.
    """

    def __init__(self, get_drift: Callable[..., pb.GetDriftResponse]) -> None:
        self._get_drift = get_drift
        self._states: dict[str, str] = {}
        self._changes: list[dict[str, Any]] = []
        self._versions: list[dict[str, Any]] = []
        self._trouble = ""

    def look(self, at_s: float) -> dict[str, Any]:
        """Ask, and return `versions`, `changes` and `trouble` (why there is no answer).

        Parameters
        ----------
        at_s : float
            Seconds of replaying, to stand beside what has changed.
        """
        try:
            answer = self._get_drift(pb.GetDriftRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            # A busy machine: what is known stays on the screen.
            self._trouble = str(error.code().name)
        else:
            self._trouble = ""
            self._versions = [_version(report) for report in answer.reports]
            for found in self._versions:
                self._note(found, at_s)
        return {
            "versions": self._versions,
            "changes": self._changes[-MOST_CHANGES:],
            "trouble": self._trouble,
        }

    def _note(self, found: dict[str, Any], at_s: float) -> None:
        """Remember a change of state."""
        before = self._states.get(found["version"], "")
        if before == found["state"]:
            return
        self._states[found["version"]] = found["state"]
        self._changes.append(
            {
                "at_s": at_s,
                "version": found["version"],
                "before": before,
                "state": found["state"],
                "reason": found["reason"],
            }
        )


def _version(report: pb.DriftReport) -> dict[str, Any]:
    drifting = sorted(report.features, key=lambda feature: -feature.score)[:TOP_FEATURES]
    reasons = [report.trouble] if report.trouble else list(report.reasons)
    # Of the reasons, that of the feature that leads; what is broken is no feature's alone.
    about = [line for line in reasons if drifting and line.startswith(f"{drifting[0].name}:")]
    return {
        "version": report.version,
        "state": report.state,
        "score": None if math.isnan(report.score) else report.score,
        "warn": report.warn,
        "reason": next(iter([*about, *reasons]), ""),
        "top": [[feature.name, feature.score] for feature in drifting if feature.score > 0],
    }
