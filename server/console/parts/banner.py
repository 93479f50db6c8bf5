"""The banner: the state, and what it is of."""

from __future__ import annotations

from server.cli.lines import size, utc
from server.console.state import ServerState
from server.console.tree import Element, element
from server.console.words import iso

# Told by mark and word, not by colour alone.
MARKS = {"serving": ("●", "good"), "starting": ("◌", "quiet"), "not ready": ("✖", "bad")}
OTHER = ("◐", "warn")


def banner(state: ServerState) -> list[Element]:
    """Return the state's words: they change when the state does, and only then."""
    mark, kind = MARKS.get(state.state, OTHER)
    said = [
        element("p", element("strong", state.state.capitalize()), f" – {state.meaning}"),
        element("p", "Why: ", state.reason) if state.reason else None,
        element("p", "Changes are frozen: ", state.frozen) if state.frozen else None,
    ]
    return [
        element(
            "div",
            element("span", mark, class_="mark", aria_hidden="true"),
            element("div", said),
            class_=f"state {kind}",
        )
    ]


def facts(state: ServerState, n_models: int) -> list[Element]:
    """Return what changes rarely, or all the time."""
    since = element(
        "time", utc(state.started_time_ms), datetime=iso(state.started_time_ms), class_="nowrap"
    )
    return [
        element(
            "dl",
            _fact("server", state.name or "–"),
            _fact("version", state.version),
            _fact("since", since),
            _fact("plan", f"generation {state.generation}" if state.generation else "none"),
            _fact("models", f"{n_models}"),
            _fact("memory", size(state.resident_bytes)),
            class_="facts",
        )
    ]


def _fact(name: str, value: Element | str) -> Element:
    return element("div", element("dt", name), element("dd", value))
