"""The table from exceptions to gRPC status is total over our own exceptions."""

from __future__ import annotations

import importlib
import pkgutil

import grpc
import pytest

import fastpath
import server
from fastpath.errors import FastpathError, ListenError
from server.control.failures import (
    CODE_BY_ERROR,
    CODE_BY_NUMBER,
    UNKNOWN_TEXT,
    RpcFailure,
    status_of,
)
from server.errors import ParityError, ScoregateError


def import_everything() -> None:
    """Exceptions may be declared anywhere: look at every module of both packages."""
    for package in (server, fastpath):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            # `feast` runs in Feast's own interpreter.
            if not module.name.endswith(("_grpc", "__main__", ".feast")):
                importlib.import_module(module.name)


def subclasses(root: type[Exception]) -> set[type[Exception]]:
    found = {root}
    for kind in root.__subclasses__():
        found |= subclasses(kind)
    return {kind for kind in found if kind.__module__.startswith(("server.", "fastpath."))}


def test_every_exception_of_ours_has_a_status_of_its_own() -> None:
    import_everything()
    ours = subclasses(ScoregateError) | subclasses(FastpathError)
    assert ours == set(CODE_BY_ERROR)


@pytest.mark.parametrize("kind", list(CODE_BY_ERROR), ids=lambda kind: kind.__name__)
def test_our_messages_are_shown(kind: type[Exception]) -> None:
    code, text = status_of(kind("model.onnx: what, where, what to do"))
    assert code is CODE_BY_ERROR[kind]
    assert code is not grpc.StatusCode.OK
    assert text == "model.onnx: what, where, what to do"


def test_errors_that_a_caller_caused_are_not_called_internal() -> None:
    for kind, code in CODE_BY_ERROR.items():
        if issubclass(kind, ValueError):
            assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE), kind


def test_the_nearest_class_decides() -> None:
    class SpecialError(ParityError):
        pass

    assert status_of(SpecialError("x")) == (CODE_BY_ERROR[ParityError], "x")


@pytest.mark.parametrize("error", [ValueError("secret"), OSError("secret"), Exception("secret")])
def test_other_exceptions_are_internal_without_detail(error: Exception) -> None:
    assert status_of(error) == (grpc.StatusCode.INTERNAL, UNKNOWN_TEXT)


def test_an_answer_of_a_loop_passes_unchanged() -> None:
    failure = RpcFailure(grpc.StatusCode.DATA_LOSS, "text")
    assert status_of(failure) == (grpc.StatusCode.DATA_LOSS, "text")
    assert status_of(ListenError("taken"))[0] is grpc.StatusCode.UNAVAILABLE


def test_every_status_number_is_known() -> None:
    assert sorted(CODE_BY_NUMBER) == list(range(17))
