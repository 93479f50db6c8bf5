"""The page: a frame of landmarks and headings, with the parts in it."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from html import escape
from importlib.resources import files

from server.cli.lines import utc
from server.console.fitting import MAX_BYTES, fit
from server.console.view import HEADINGS, View
from server.console.words import iso

FRAME_BYTES = 5000  # the page without its parts, and then some
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%232a78d6'/%3E"
    "%3Cpath d='M3 11l3-4 3 2 4-6' fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E"
)


@cache
def asset(name: str) -> bytes:
    """Return one of the page's files."""
    return files(__package__).joinpath(name).read_bytes()


@cache
def build() -> str:
    """Return what tells this version of the page from others."""
    return blake2b(asset("style.css") + asset("script.js"), digest_size=6).hexdigest()


def make_page(view: View) -> str:
    """Return the page as of one moment."""
    room = MAX_BYTES - FRAME_BYTES - len(asset("style.css")) - len(asset("script.js"))
    fitted = fit({name: part.nodes for name, part in view.parts.items()}, room)
    parts = {name: one.html for name, one in fitted.items()}
    # What is not whole the script asks for.
    digests = " ".join(
        f"{name}:{part.digest}" for name, part in view.parts.items() if fitted[name].is_whole
    )
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        f'<div id="part-{name}">{parts[name]}</div></section>'
        for name, title in HEADINGS.items()
    )
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in HEADINGS.items())
    server = view.data["server"]
    title = f"{server.state} – Scoregate" + (f" {server.name}" if server.name else "")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        f'<link rel="icon" href="{ICON}"><link rel="stylesheet" href="/console/style.css">'
        '<script src="/console/script.js" defer></script></head>'
        f'<body data-build="{build()}" data-digests="{digests}">'
        '<a class="skip" href="#main">Skip to what serves</a>'
        '<header><div class="brand"><h1>Scoregate console</h1>'
        f'<p id="clock" class="note">As of <time id="now" datetime="{iso(view.now_ms)}">'
        f"{utc(view.now_ms)}</time></p>"
        '<noscript><p class="note">Without JavaScript this page stands still: reload it to see '
        "what has changed.</p></noscript></div>"
        f'<div id="part-state" role="status" aria-live="polite">{parts["state"]}</div>'
        f'<div id="part-facts">{parts["facts"]}</div>'
        f'<nav aria-label="Sections">{links}</nav></header>'
        f'<main id="main" tabindex="-1">{sections}</main>'
        '<footer><p class="note">Read-only. Times are UTC. What changes serving is '
        "<code>scoregate</code> at a terminal.</p></footer></body></html>\n"
    )
