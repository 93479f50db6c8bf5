"""User instructions per call, counted by valgrind's callgrind: the quiet witness.

Rules: what is counted is the loop thread of a real server process, answering h2load on 8
connections with 4 calls in flight each; the kernel's share of a call is not seen. Another run,
another machine of the same kind and a busy neighbour give the same figure within a percent: what
varies is how many calls one wake-up brings.

How it works: the server starts without instrumentation, answers some calls, then two loads of
different lengths, each dumped by itself. The difference, divided by the difference in calls, leaves
out whatever does not grow with calls: connections, settings, ticks. The thread with the greatest
difference is the loop.

What it does not do: count system calls, cache misses or time; see AVX-512, which valgrind does not
know (it reports AVX2, and the forest takes that variant).

Run as a module, it becomes the server under callgrind: `python -m bench.callgrind FOLDER MODULE
ARGUMENTS`. That keeps the process id, which callgrind_control needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import h2load
from bench.errors import BenchError
from bench.h2load import Load
from bench.processes import server

DEBIAN_LINE = "apt-get install -y valgrind nghttp2-client"
DUMP = "callgrind.out"
N_WARM = 2_000
REPETITIONS = 3

# "fn=(12) name" names number 12, "fn=(12)" means it again; callees use the same numbers.
NAMED = re.compile(r"^c?(ob|fn)=\((\d+)\)(?: (.*))?$")
CYTHON = re.compile(r"^__pyx_f_(.+?)(?:\.isra\.\d+|\.part\.\d+|\.constprop\.\d+|\.cold|'\d+)*$")

Costs = Counter[tuple[str, str]]  # (object, function) -> instructions of its own


class ProfileError(BenchError):
    """A profiler is missing or failed, or its output is not what it should be."""


@dataclass(frozen=True)
class Instructions:
    """What one call costs on the loop thread, in user instructions."""

    per_call: tuple[float, ...]  # one value per repetition
    by_room: dict[str, float]  # object -> instructions per call, the dearest first
    by_function: dict[str, float]  # "room.function" -> the same


def tool(name: str, line: str = DEBIAN_LINE) -> str:
    """Return the path of a program.

    Raises
    ------
    ProfileError
        It is not installed; the message holds the line that installs it.
    """
    path = shutil.which(name)
    if path is None:
        raise ProfileError(f"{name} is missing; on Debian: {line}")
    return path


def room_of(path: str) -> str:
    """Shorten an object's path: our extensions to their module, libraries to their name."""
    name = Path(path).name
    stem = name.split(".", 1)[0]
    return f"fastpath.{stem}" if ".cpython-" in name else stem


def readable(symbol: str) -> str:
    """Undo Cython's name mangling: `__pyx_f_8fastpath_5http2_on_header` is `on_header`."""
    match = CYTHON.match(symbol)
    if match is None:
        return symbol
    rest = match[1]
    while size := re.match(r"(\d+)", rest):
        after = rest[size.end() + int(size[1]) :]
        if not after.startswith("_"):
            return symbol
        rest = after[1:]
    return rest


def read_dump(lines: Iterable[str]) -> Costs:
    """Add up a callgrind dump by object and function; a callee's cost stays the callee's.

    Raises
    ------
    ProfileError
        It is no callgrind dump.
    """
    names: dict[tuple[str, str], str] = {}
    current = {"ob": "?", "fn": "?"}
    costs: Costs = Counter()
    is_dump = False
    skip = False
    for raw in lines:
        line = raw.rstrip("\n")
        if line.startswith("events:"):
            is_dump = line.split()[1:] == ["Ir"]
        elif match := NAMED.match(line):
            kind, number, name = match.groups()
            if name is not None:
                names[kind, number] = name
            if not line.startswith("c"):
                current[kind] = names.get((kind, number), "?")
        elif line.startswith("calls="):
            skip = True  # the next line is the cost inside the callee
        elif line[:1] in "0123456789+-*" and line:
            if not skip:
                costs[current["ob"], current["fn"]] += int(line.split()[-1])
            skip = False
    if not is_dump:
        raise ProfileError("this is no callgrind dump that counts instructions (events: Ir)")
    return costs


def differences(
    short: dict[str, Costs], long: dict[str, Costs], n_calls: int
) -> tuple[str, dict[tuple[str, str], float]]:
    """Return the busiest thread and what each of its functions costs per call.

    Parameters
    ----------
    short, long : dict of str to Costs
        By thread, of two loads.
    n_calls : int
        How many calls more the long load had.
    """
    grown = {thread: more.total() - short.get(thread, Counter()).total()
             for thread, more in long.items()}  # fmt: skip
    if not grown or max(grown.values()) <= 0:
        raise ProfileError("no thread did more under the longer load: was the server called?")
    busiest = max(grown, key=lambda thread: grown[thread])
    before, after = short.get(busiest, Counter()), long[busiest]
    return busiest, {key: (after[key] - before[key]) / n_calls for key in after | before}


def summed(
    costs: Iterable[dict[tuple[str, str], float]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Average repetitions: by room, and by function of a room, the dearest first."""
    rooms: defaultdict[str, float] = defaultdict(float)
    functions: defaultdict[str, float] = defaultdict(float)
    n = 0
    for one in costs:
        n += 1
        for (path, symbol), cost in one.items():
            room = room_of(path)
            # What a stripped library keeps to itself has addresses for names.
            name = readable(symbol) if not symbol.startswith("0x") else f"({symbol[-5:]})"
            rooms[room] += cost
            functions[f"{room}.{name}"] += cost
    return (
        {name: round(cost / n, 1) for name, cost in dearest(rooms) if cost / n >= 0.5},
        {name: round(cost / n, 1) for name, cost in dearest(functions)[:60] if cost / n >= 5},
    )


def dearest(costs: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return names and costs, the dearest first."""
    return sorted(costs.items(), key=lambda item: -item[1])


def control(*arguments: str) -> None:
    """Run callgrind_control; its answer is looked at only when it fails."""
    done = subprocess.run(
        [tool("callgrind_control"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ProfileError(f"callgrind_control failed: {(done.stderr or done.stdout).strip()}")


def count(arguments: list[str], method: str, message: bytes, n_calls: int) -> Instructions:
    """Serve `python -m ARGUMENTS` under callgrind and count what one call takes.

    Parameters
    ----------
    arguments : list of str
        Module and arguments of a server that writes a ready file.
    method : str
        Path of the method.
    message : bytes
        Sent each time.
    n_calls : int
        Of the long load; the short one has a quarter.

    Raises
    ------
    ProfileError
        Valgrind is missing or failed.
    LoadError
        The load failed.
    """
    tool("valgrind")
    n_short = n_calls // 4
    each = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(["bench.callgrind", folder, *arguments]) as target,
    ):
        pid, port = str(target.pid), target.port("fast")

        def load(n: int) -> None:
            h2load.run(port, method, message, Load(n))

        load(N_WARM)
        control("--instr=on", pid)
        load(N_WARM)
        control("--zero", pid)
        for i in range(REPETITIONS):
            dumps = []
            for number, n in ((2 * i + 1, n_short), (2 * i + 2, n_calls)):
                load(n)
                control("--dump", pid)
                dumps.append(read_threads(Path(folder), number))
            each.append(differences(dumps[0], dumps[1], n_calls - n_short)[1])
    rooms, functions = summed(each)
    return Instructions(tuple(round(sum(one.values()), 1) for one in each), rooms, functions)


def read_threads(folder: Path, number: int) -> dict[str, Costs]:
    """Read one dump: a file per thread."""
    found = {}
    for path in sorted(folder.glob(f"{DUMP}.{number}-*")):
        with path.open(errors="replace") as lines:
            found[path.name.rsplit("-", 1)[1]] = read_dump(lines)
    if not found:
        raise ProfileError(f"callgrind wrote no dump number {number}")
    return found


def main(arguments: list[str]) -> None:
    """Become `python -m MODULE ARGUMENTS` under callgrind, not counting yet."""
    folder, *rest = arguments
    valgrind = tool("valgrind")
    os.execv(  # noqa: S606 - nothing to quote without a shell
        valgrind,
        [
            *(valgrind, "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"),
            *(f"--callgrind-out-file={folder}/{DUMP}", sys.executable, "-m", *rest),
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
