"""Result files: repetitions, targets, the machine, written aside and renamed."""

from __future__ import annotations

import json
import operator
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

OPERATORS = {"<=": operator.le, ">=": operator.ge}
PACKAGES = ("numpy", "onnxruntime", "scikit-learn", "grpcio", "protobuf", "cython")


@dataclass(frozen=True)
class Spread:
    """Repetitions of one measurement."""

    min: float
    median: float
    max: float
    repetitions: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise repetitions, in the order in which they were taken."""
        return cls(min(values), statistics.median(values), max(values), tuple(values))


@dataclass(frozen=True)
class Target:
    """A number that was promised, beside the number that was measured."""

    name: str
    value: float
    op: str
    target: float

    @property
    def met(self) -> bool:
        """Whether the measured value keeps the promise."""
        return bool(OPERATORS[self.op](self.value, self.target))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Pair repetitions that ran next to each other, and summarise their ratios."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def machine() -> dict[str, Any]:
    """Describe where the numbers were taken."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
    }


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    found = {name: metadata.version(name) for name in PACKAGES}
    nghttp2 = subprocess.run(
        ["pkg-config", "--modversion", "libnghttp2"], capture_output=True, text=True, check=False
    )
    return {"python": platform.python_version(), "nghttp2": nghttp2.stdout.strip(), **found}


def commit() -> str:
    """Return the commit that was measured, marked where the tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def write(path: Path, values: dict[str, Any], targets: Sequence[Target], command: str) -> None:
    """Write one result file: aside, fsynced, renamed."""
    document = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **{k: asdict(v) if isinstance(v, Spread) else v for k, v in values.items()},
        "targets": [{**asdict(target), "met": target.met} for target in targets],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    with aside.open("w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
