"""Exceptions of `server`.

Every message says what was wrong, where (file, feature, row, key) and what to do about it. Errors
that a caller's input caused also derive ValueError: the command line ends with exit code 2 for
those, and with 1 for the others.
"""

from __future__ import annotations


class ScoregateError(Exception):
    """Root of everything that `server` raises on purpose."""


class ConfigError(ScoregateError, ValueError):
    """A setting is unknown, mistyped or outside its range."""


class InputError(ScoregateError, ValueError):
    """A file, column or argument that a user gave cannot be used."""


class BundleError(ScoregateError, ValueError):
    """A bundle is damaged, incomplete, of a newer format, or not ours."""


class ParityError(BundleError):
    """A native engine and onnxruntime disagree about a bundle's model."""


class ExportError(ScoregateError, ValueError):
    """A scikit-learn model cannot be exported."""


class StartError(ScoregateError):
    """The server cannot start: a port is taken, a path unreadable, nothing to serve."""


class NotFoundError(StartError):
    """A model or a version is not in the repository."""


class CallError(ScoregateError):
    """A call to a running server failed: it is not there, or it answered with an error."""


class RefusedError(InputError):
    """The server blames the call; `code` is the name of the gRPC status."""

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message)
        self.code = code


class FeatureStoreError(ScoregateError):
    """A store of features refused, or was not there; the message says how far we got."""


class JournalError(ScoregateError):
    """The journal of changes cannot be read or written; nothing was changed."""


class ChangeError(ScoregateError, ValueError):
    """A change of what serves makes no sense: unknown arm, weights that do not add up."""


class ConflictError(ScoregateError):
    """What serves is not what the change was decided on, or changes are frozen."""


class AccessError(ScoregateError):
    """A caller of the control port may not do that."""


class UnauthenticatedError(AccessError):
    """A caller of the control port has not said who it is, or is not known."""


class FeedbackError(ScoregateError):
    """Decisions or outcomes cannot be kept or read; what serves goes on."""
