"""Flame graphs of a serving process: perf's samples, folded and drawn as one SVG file.

Rules: the picture stands alone (no network, no fonts, no library) and is the same for the same
samples. Width is time on the processor; what sleeps is not in it. Colour says whose code it is.

How it works: `perf record` with the software clock, which virtual machines have too, unwinds user
stacks by the debugging information (our extensions and Debian's libraries keep no frame
pointers). `perf script` prints the samples; `read_script` makes stacks of them, `Tree` adds
up stacks with a common beginning, `render` draws the tree. A click widens a frame, a
click on the lowest one shows everything again.

What it does not do: name functions inside a stripped library; they are "(internal)".
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from bench.callgrind import ProfileError, readable, room_of, tool

DEBIAN_LINE = "apt-get install -y linux-perf"
RATE_HZ = 1_999  # not a divisor of the kernel's own tick
STACK_BYTES = 16_384  # a forest's scratch memory lies on the stack

WIDTH, FRAME, CHARACTER, MARGIN, HEADER = 1200, 17, 6.6, 10, 46
MIN_WIDTH = 0.3

COLOURS = {
    "kernel": "#d98b5f",
    "nghttp2": "#d9b84f",
    "fastpath": "#6fae8d",
    "python": "#7f9fc9",
    "other": "#b5aca3",
}
LABELS = {
    "kernel": "kernel",
    "nghttp2": "nghttp2",
    "fastpath": "ours",
    "python": "Python",
    "other": "other libraries",
}

# One line of a stack: "  12ab nghttp2_session_mem_recv (/usr/lib/libnghttp2.so.14)".
FRAME_LINE = re.compile(r"^\s+[0-9a-f]+ (?P<symbol>.+) \((?P<object>[^()]*(?:\([^()]*\))?)\)$")

Frame = tuple[str, str]  # kind, name


def frame_of(symbol: str, path: str) -> Frame | None:
    """Name one frame and say whose it is; None for what could not be unwound."""
    symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    if "kernel" in path or (path.startswith("[") and path != "[vdso]"):
        return None if symbol == "[unknown]" else ("kernel", symbol)
    room = room_of(path)
    if room == "fastpath.[unknown]" or path.startswith("[unknown"):
        return None
    name = "(internal)" if symbol == "[unknown]" else readable(symbol)
    if room.startswith("fastpath."):
        return ("fastpath", f"{room.removeprefix('fastpath.')}.{name}")
    if room.startswith("libnghttp2"):
        return ("nghttp2", name if name != "(internal)" else "nghttp2 (internal)")
    if room.startswith(("python", "libpython")):
        return ("python", name)
    return ("other", name if name != "(internal)" else room)


def rooted(stacks: Iterable[tuple[Frame, ...]], root: str) -> Iterator[tuple[Frame, ...]]:
    """Cut what called `root` off: it is the same in every stack, where it could be unwound."""
    for stack in stacks:
        names = [name for _, name in stack]
        yield stack[names.index(root) :] if root in names else stack


def read_script(lines: Iterable[str], thread: str) -> Iterator[tuple[Frame, ...]]:
    """Yield the stacks of `perf script -F comm,tid,ip,sym,dso`, outermost frame first.

    Parameters
    ----------
    lines : iterable of str
    thread : str
        Only threads whose name begins so.
    """
    wanted = False
    frames: list[Frame] = []
    for line in lines:
        if not line.strip():
            if wanted and frames:
                yield tuple(reversed(frames))
            wanted, frames = False, []
        elif not line[0].isspace():
            wanted, frames = line.startswith(thread), []
        elif match := FRAME_LINE.match(line.rstrip("\n")):
            frame = frame_of(match["symbol"], match["object"])
            # A run of unnamed frames says no more than one of them.
            if frame is not None and (not frames or frames[-1] != frame):
                frames.append(frame)
    if wanted and frames:
        yield tuple(reversed(frames))


@dataclass
class Tree:
    """Samples whose stacks begin alike."""

    n: int = 0
    children: dict[Frame, Tree] = field(default_factory=dict)

    def add(self, stack: tuple[Frame, ...]) -> None:
        """Count one sample."""
        self.n += 1
        node = self
        for frame in stack:
            node = node.children.setdefault(frame, Tree())
            node.n += 1

    @property
    def depth(self) -> int:
        """Frames of the deepest stack."""
        return max((1 + child.depth for child in self.children.values()), default=0)


SCRIPT = """
const all = [...document.querySelectorAll('g.f')].map(g => ({
  g, rect: g.children[1], text: g.children[2], name: g.dataset.n,
  x: +g.dataset.x, w: +g.dataset.w, d: +g.dataset.d}));
function show(from) {
  for (const f of all) {
    const above = f.x >= from.x - 1e-9 && f.x + f.w <= from.x + from.w + 1e-9;
    const below = f.d < from.d && f.x <= from.x + 1e-9 && f.x + f.w >= from.x + from.w - 1e-9;
    f.g.style.display = above || below ? '' : 'none';
    const x = below ? MARGIN : MARGIN + (f.x - from.x) / from.w * SPAN;
    const w = below ? SPAN : f.w / from.w * SPAN;
    f.rect.setAttribute('x', x);
    f.rect.setAttribute('width', w);
    f.text.setAttribute('x', x + 3);
    const room = Math.floor((w - 6) / CHARACTER);
    f.text.textContent = room >= f.name.length ? f.name
      : room > 3 ? f.name.slice(0, room - 1) + '\\u2026' : '';
  }
}
for (const f of all) f.g.addEventListener('click', () => show(f));
"""


def _frames(tree: Tree, total: int, height: int) -> Iterator[str]:
    """Draw every frame that is wide enough to see."""
    span = WIDTH - 2 * MARGIN
    waiting: list[tuple[Tree, Frame, float, int]] = [(tree, ("other", "all"), 0.0, 0)]
    while waiting:
        node, (kind, name), left, depth = waiting.pop()
        share = node.n / total
        if share * span < MIN_WIDTH:
            continue
        x, y = MARGIN + left * span, height - MARGIN - (depth + 1) * FRAME
        room = int((share * span - 6) / CHARACTER)
        shown = name if len(name) <= room else (name[: room - 1] + "\u2026" if room > 3 else "")
        quoted = escape(name, {'"': "&quot;"})
        yield (
            f'<g class="f" data-x="{left:.7f}" data-w="{share:.7f}" data-d="{depth}" '
            f'data-n="{quoted}"><title>{quoted}: {share:.2%} ({node.n} samples)</title>'
            f'<rect x="{x:.2f}" y="{y}" width="{share * span:.2f}" height="{FRAME - 1}" rx="1" '
            f'fill="{COLOURS[kind]}"/><text x="{x + 3:.2f}" y="{y + 12}">{escape(shown)}</text></g>'
        )
        for frame, child in sorted(node.children.items(), key=lambda item: item[0]):
            waiting.append((child, frame, left, depth + 1))
            left += child.n / total


def render(stacks: Iterable[tuple[Frame, ...]], title: str) -> str:
    """Draw a flame graph.

    Parameters
    ----------
    stacks : iterable of tuple of (kind, name)
        One per sample, outermost frame first; kinds are those of `COLOURS`.
    title : str

    Returns
    -------
    str
        An SVG document.

    Raises
    ------
    ProfileError
        There is no sample.
    """
    tree = Tree()
    for stack in stacks:
        tree.add(stack)
    if tree.n == 0:
        raise ProfileError("perf saw no sample of the loop thread: was the server called?")
    height = HEADER + (tree.depth + 1) * FRAME + MARGIN
    script = SCRIPT
    for name, value in (("MARGIN", MARGIN), ("SPAN", WIDTH - 2 * MARGIN), ("CHARACTER", CHARACTER)):
        script = script.replace(name, str(value))
    legend = "".join(
        f'<rect x="{MARGIN + 130 * i}" y="26" width="11" height="11" fill="{COLOURS[kind]}"/>'
        f'<text x="{MARGIN + 130 * i + 16}" y="36">{label}</text>'
        for i, (kind, label) in enumerate(LABELS.items())
    )
    style = (
        "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#222}"
        ".f{cursor:pointer}.f:hover rect{stroke:#222}.f text{pointer-events:none}"
    )
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    heading = f"{escape(title)}, {tree.n} samples"
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fbfaf7"/>',
            f'<text x="{MARGIN}" y="18" style="font-size:13px">{heading}</text>',
            legend,
            *_frames(tree, tree.n, height),
            f"<script><![CDATA[{script}]]></script>",
            "</svg>",
            "",
        ]
    )


class Recording:
    """`perf record` of one process, from construction until `script`."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name, "perf.data")
        self._process = subprocess.Popen(
            [
                *(tool("perf", DEBIAN_LINE), "record", "--quiet", "-e", "cpu-clock"),
                *("-F", str(RATE_HZ), "--call-graph", f"dwarf,{STACK_BYTES}", "-p", str(pid)),
                *("-o", str(self._file), "--", "sleep", str(seconds)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def script(self) -> list[str]:
        """Wait for the end of the recording and return the samples as text, line by line.

        Raises
        ------
        ProfileError
            perf failed; the message is perf's own.
        """
        with self._folder:
            _, errors = self._process.communicate()
            if self._process.returncode != 0:
                raise ProfileError(f"perf record failed: {errors.strip()[-400:]}")
            done = subprocess.run(
                [
                    *(tool("perf", DEBIAN_LINE), "script", "--no-inline", "-i", str(self._file)),
                    *("-F", "comm,tid,ip,sym,dso"),
                ],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode != 0:
                raise ProfileError(f"perf script failed: {done.stderr.strip()[-400:]}")
            return done.stdout.splitlines()
