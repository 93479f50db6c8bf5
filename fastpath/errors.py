"""Exceptions of `fastpath`: pure Python, so that everybody may import them.

Every message says what was wrong, where, and what to do. Errors that a caller's input caused
also derive ValueError. On the request path there are no exceptions: a status and a text travel in
`error_t` (see `_types.pxd`).
"""

from __future__ import annotations


class FastpathError(Exception):
    """Root of everything that `fastpath` raises on purpose."""


class ModelError(FastpathError, ValueError):
    """A model cannot be compiled: its arrays are inconsistent or outside the engine's limits."""


class SchemaError(FastpathError, ValueError):
    """A feature schema is inconsistent."""


class PlanError(FastpathError, ValueError):
    """A serving plan cannot be compiled from these models, schemas and weights."""


class RoutingError(FastpathError, ValueError):
    """Weights or keys are outside what the bucket table can hold."""


class RuntimeLibraryError(FastpathError):
    """onnxruntime's shared library is missing, too old, or refused what it was given."""


class ListenError(FastpathError, OSError):
    """An address cannot be listened on."""

    def __str__(self) -> str:
        """Return the text alone: an errno in front says nothing to whoever reads it."""
        return self.strerror or super().__str__()


class StoreError(FastpathError):
    """A store of features cannot be opened or used: missing, damaged, or of another format."""


class LoopError(FastpathError):
    """A loop is not running, or was asked for something that it cannot do in its state."""


class RequestError(FastpathError, ValueError):
    """A request is malformed or does not fit the schema: raised by the entries for tests and tools.

    The serving path answers with the same text as INVALID_ARGUMENT.
    """
