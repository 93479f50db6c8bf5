"""Arguments that the load generator refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.errors import LoadInputError
from bench.generator import Generator, Limits, Message
from tests.support.generating import load, one
from tests.support.h2client import ECHO

# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "nowhere"}, "no address"),
        ({"address": "127.0.0.1:99999"}, "1 to 65535"),
        ({"address": "unix:"}, "no socket's path"),
        ({"address": "no.such.host.invalid:80"}, "cannot be resolved"),
        ({"messages": []}, "no messages"),
        ({"messages": [b"x"]}, "message 0 is a bytes"),
        ({"messages": [Message("Echo", b"")]}, "no method's path"),
        ({"messages": [Message(ECHO, b"")], "check": "bytes"}, "message 0 has nothing to check"),
        ({"messages": [Message(ECHO, b"")], "check": "most"}, "none, bytes, score"),
        ({"n_connections": 0}, "n_connections is 0"),
        ({"n_streams": 1.5}, "n_streams is 1.5"),
        ({"n_connections": 100_000, "n_streams": 100}, "at most 1000000"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"check_share": 1.1}, "check_share is 1.1"),
        ({"order": "sorted"}, "cycle or random"),
        ({"core": 4096}, "core 4096 is not among"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], said: str) -> None:
    arguments = {"address": "127.0.0.1:1", "messages": one(), **options}
    with pytest.raises(LoadInputError, match=said):
        Generator(arguments.pop("address"), arguments.pop("messages"), **arguments)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda g: g.run_closed(), "either duration_s or n_calls"),
        (lambda g: g.run_closed(duration_s=1, n_calls=1), "either duration_s or n_calls"),
        (lambda g: g.run_closed(n_calls=0), "n_calls is 0"),
        (lambda g: g.run_closed(duration_s=-1), "duration_s is -1"),
        (lambda g: g.run_open(np.array([], dtype=np.int64)), "n > 0"),
        (lambda g: g.run_open(np.array([0.5])), "float64"),
        (lambda g: g.run_open(np.array([2, 1])), "has to ascend"),
        (lambda g: g.run_open(np.array([-1, 1])), "has to ascend"),
        (lambda g: g.run_open(np.array([1, 2]), warmup_s=-1), "warmup_s is -1"),
    ],
)
def test_runs_that_cannot_be(call: Any, said: str) -> None:
    with pytest.raises(LoadInputError, match=said):
        call(load("127.0.0.1:1"))


def test_limits_that_cannot_be() -> None:
    with pytest.raises(LoadInputError, match="max_error_share"):
        Limits(max_error_share=float("nan"))
