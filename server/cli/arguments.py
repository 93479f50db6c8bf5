"""Arguments that several verbs share: shares of the traffic, NAME=VALUE pairs, [MODEL] VERSION."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

import click

ALL_PERCENT = 100


class Percent(click.ParamType[int]):
    """A share in percent, of at most two decimals, as basis points."""

    name = "percent"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return basis points; click fails with the message otherwise."""
        if isinstance(value, int):
            return value
        try:
            return basis_points(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Generation(click.ParamType[int]):
    """The generation of a plan."""

    name = "generation"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; click fails with the message otherwise."""
        text = str(value)
        if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 64:
            self.fail(f"{text!r} is no generation; `scoregate history` lists them", param, ctx)
        return int(text)


PERCENT = Percent()
GENERATION = Generation()


def basis_points(text: str) -> int:
    """Return the basis points of a text like "10", "12.5" or "10%".

    Raises
    ------
    ValueError
        It is no share from 0 to 100 with at most two decimals.
    """
    problem = f"{text!r} is no percentage: 0 to 100, with at most two decimals"
    try:
        share = Decimal(text.strip().removesuffix("%").strip())
    except InvalidOperation:
        raise ValueError(problem) from None
    if not share.is_finite() or not 0 <= share <= ALL_PERCENT or (share * 100) % 1:
        raise ValueError(problem)
    return int(share * 100)


def pairs(given: Sequence[str], what: str) -> dict[str, str]:
    """Return NAME=VALUE arguments as a dict; the last "=" counts, so a NAME may hold some.

    Raises
    ------
    click.UsageError
        One is none, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{text!r} is not {what}")
        if name in found:
            raise click.UsageError(f"{name!r} is given twice")
        found[name] = value
    return found


def weights(given: Sequence[str]) -> dict[str, int]:
    """Return ARM=PERCENT arguments as basis points; UsageError where one is none."""
    found = {}
    for name, text in pairs(given, "ARM=PERCENT").items():
        try:
            found[name] = basis_points(text)
        except ValueError as error:
            raise click.UsageError(f"{name}: {error}") from None
    return found


def scores(given: Sequence[str]) -> Mapping[str, float]:
    """Return NAME=SCORE arguments; UsageError where one is none."""
    found = {}
    for name, text in pairs(given, "NAME=SCORE").items():
        try:
            found[name] = float(text)
        except ValueError:
            raise click.UsageError(f"{name}: {text!r} is not a number") from None
    return found


def model_and_version(names: Sequence[str]) -> tuple[str, str]:
    """Return the model (empty: the default one) and the version of "[MODEL] VERSION"."""
    if not 1 <= len(names) <= 2:
        raise click.UsageError("give [MODEL] VERSION: the version, and before it the model")
    return ("", names[0]) if len(names) == 1 else (names[0], names[1])
