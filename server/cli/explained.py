"""What a call that did not end with OK means, for people: who is to blame, and what to do."""

from __future__ import annotations

from server.errors import CallError, RefusedError

# Statuses that blame the call: exit code 2.
INPUT_CODES = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})


def explain(code: str, details: str | None, address: str, method: str = "") -> Exception:
    """Return the error for a call that did not end with OK.

    Parameters
    ----------
    code
        Name of the gRPC status.
    details
        What the server, or grpc, said.
    address
        Who was called.
    method
        What was called, where it matters whether it was carried out: a change may have been.
    """
    said = details or "no details"
    if code in INPUT_CODES:
        return RefusedError(f"{address} answered {code}: {said}", code)
    maybe = ""
    if method.endswith("/ReportOutcomes"):
        maybe = "; what was acknowledged is kept, and all of it may be sent again"
    elif method and not method.rpartition("/")[2].startswith(("Get", "List", "Watch")):
        maybe = "; it may have been carried out all the same: look at `scoregate history`"
    if code == "UNAVAILABLE":
        if "failed to connect" in said.lower():
            maybe = ""
        return CallError(
            f"no answer from {address} ({said}); is `scoregate serve` running there? "
            f"--address says where to call{maybe}"
        )
    if code == "DEADLINE_EXCEEDED":
        return CallError(f"no answer from {address} in time; --timeout-s waits longer{maybe}")
    if code == "UNIMPLEMENTED":
        return CallError(
            f"{address} answered {code}: {said}; is it a control port (50052), and of this version?"
        )
    if code == "RESOURCE_EXHAUSTED":
        # Where the answer was too large, and not the request, the change is in force.
        return CallError(f"{address} answered {code}: {said}{maybe}")
    return CallError(f"{address} answered {code}: {said}")
