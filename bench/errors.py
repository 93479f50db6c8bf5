"""What `bench` raises on purpose.

Every message says what was wrong, where, and what to do. A run that happened, however badly, is a
result with `valid=False` and reasons, not an exception.
"""

from __future__ import annotations


class BenchError(Exception):
    """Root of everything that `bench` raises on purpose."""


class LoadError(BenchError):
    """A load cannot be made: a wrong argument, or nobody to talk to."""


class LoadInputError(LoadError, ValueError):
    """A caller's argument is wrong: an address, a message, a rate, a schedule."""


class HistogramError(BenchError, ValueError):
    """An encoded histogram is damaged, or of another shape than ours."""


class ScenarioError(BenchError, ValueError):
    """A scenario file cannot be used: unreadable, malformed, or asking for what cannot be."""


class SourceError(BenchError, ValueError):
    """Messages cannot be read or made: a damaged recording, a column that is not there."""


class ResultError(BenchError, ValueError):
    """A result file cannot be read, or holds nothing that can be shown or compared."""
