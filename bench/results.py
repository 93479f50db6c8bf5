"""Result files: repetitions, targets, the machine, written aside and renamed."""

from __future__ import annotations

import json
import math
import operator
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.errors import ResultError

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


def plain(value: Any) -> Any:
    """Return a value as `json` can hold it: dataclasses as objects, NaN and infinities as null."""
    if isinstance(value, Target):
        return {**asdict(value), "met": value.met}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def document(values: dict[str, Any], targets: Sequence[Target], command: str) -> dict[str, Any]:
    """Return what a result file holds: circumstances first, then values, then promises."""
    whole = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **values,
        "targets": list(targets),
    }
    found = plain(whole)
    assert isinstance(found, dict)
    return found


def text(document: dict[str, Any]) -> str:
    """Return a result file's text: a line for each figure and each run, so that diffs are read."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n ]")
        elif key in ("metrics", "ratios") and isinstance(value, dict):
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def save(path: Path, document: dict[str, Any]) -> None:
    """Write one result file: aside, fsynced, renamed.

    Raises
    ------
    ResultError
        It cannot be written.
    """
    aside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text(document))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror}") from None


def read(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises
    ------
    ResultError
        It cannot be read, or is no result file of ours.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ResultError(f"{path}: not valid JSON: {error}") from None
    lacking = (
        [k for k in ("taken", "machine", "targets") if k not in found]
        if isinstance(found, dict)
        else ["everything"]
    )
    if lacking:
        raise ResultError(f"{path}: no result file: it lacks {', '.join(lacking)}")
    assert isinstance(found, dict)
    return found


def spreads(document: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return every figure of a result file with its repetitions; single values have one.

    Those of a scenario are named "run.quantity", and its ratios by their own names.
    """
    found: dict[str, tuple[float, ...]] = {}
    places = [document, document.get("metrics", {}), document.get("ratios", {})]
    for place in places:
        for name, value in place.items():
            if isinstance(value, dict) and "repetitions" in value and "median" in value:
                known = [x for x in value["repetitions"] if x is not None]
                if known:
                    found[name] = tuple(map(float, known))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = (float(value),)
    return found
