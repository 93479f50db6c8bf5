"""`python -m bench`: measure everything there is and write one result file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench import kernels, model, transport
from bench.h2load import LoadError
from bench.processes import ServerDiedError
from bench.results import Spread, Target, write


def table(values: dict[str, object], targets: list[Target]) -> str:
    """Lay the numbers out for a terminal."""
    lines = [f"{'':44}{'min':>12}{'median':>12}{'max':>12}"]
    for name, value in values.items():
        if isinstance(value, Spread):
            lines.append(f"{name:44}{value.min:12.4g}{value.median:12.4g}{value.max:12.4g}")
        elif isinstance(value, bool | int | float):
            lines.append(f"{name:44}{'':12}{value!s:>12}")
    lines += ["", f"{'target':44}{'measured':>12}{'promised':>15}"]
    lines += [
        f"{t.name:44}{t.value:12.4g}{t.op:>6}{t.target:9.4g}  {'met' if t.met else 'NOT MET'}"
        for t in targets
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the benchmarks; 0 when they ran, whether or not every target is met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls: a first look")
    parser.add_argument("--out", type=Path, help="result file; latest.json, or none with --quick")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        parser.error("the benchmarks need two cores: one for the server, one for the load")
    sizes = transport.QUICK if options.quick else transport.FULL
    out = options.out or (None if options.quick else Path("bench/results/latest.json"))
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {what}", file=sys.stderr, flush=True)

    try:
        say("model: 100 trees of depth 6 on 30 features")
        bench = model.prepare()
        kernel_values, kernel_targets = kernels.run(bench, sizes.repetitions, say)
        socket_values, socket_targets = transport.run(bench, sizes, say)
    except (LoadError, ServerDiedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    values, targets = socket_values | kernel_values, socket_targets + kernel_targets
    print(table(values, targets))
    if out is not None:
        write(out, values, targets, "make bench")
        print(f"\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
