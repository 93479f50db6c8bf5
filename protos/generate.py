"""Generates `server/pb` from `protos/`; with --check, fails where the two differ.

protoc writes absolute imports by the proto's own path (`from scoregate.v1 import ...`). The
generated package lives in `server.pb`, so those imports get that prefix; nothing else is changed.
"""

from __future__ import annotations

import argparse
import filecmp
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "server" / "pb"
IMPORT = re.compile(r"^from (scoregate|inference|onnx_subset)(\.\S+)? import ", re.MULTILINE)


def generate(out: Path) -> None:
    """Write modules, stubs and package files for every proto below `protos/` into `out`."""
    protos = sorted(ROOT.rglob("*.proto"))
    include = resources.files("grpc_tools") / "_proto"
    served = [path for path in protos if "\nservice " in path.read_text()]
    base = ["protoc", f"-I{ROOT}", f"-I{include}"]
    for flags, paths in (
        ([f"--python_out={out}", f"--pyi_out={out}"], protos),
        ([f"--grpc_python_out={out}"], served),
    ):
        if protoc.main([*base, *flags, *map(str, paths)]) != 0:
            sys.exit("protoc failed; its messages are above")
    for path in out.rglob("*.py*"):
        path.write_text(IMPORT.sub(r"from server.pb.\1\2 import ", path.read_text()))
    for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from protos/ by protos/generate.py."""\n')


def differences(fresh: Path) -> list[str]:
    """Relative paths that are missing, left over or different in `server/pb`."""
    kept = {p.relative_to(TARGET) for p in TARGET.rglob("*.py*") if "__pycache__" not in p.parts}
    made = {p.relative_to(fresh) for p in fresh.rglob("*.py*")}
    both = kept & made
    changed = {p for p in both if not filecmp.cmp(TARGET / p, fresh / p, shallow=False)}
    return sorted(str(p) for p in (kept ^ made) | changed)


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare only")
    if not parser.parse_args().check:
        TARGET.mkdir(exist_ok=True)
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        wrong = differences(fresh)
    if wrong:
        names = "\n  ".join(wrong)
        sys.exit(f"generated code differs from protos/; run `make protos`:\n  {names}")


if __name__ == "__main__":
    main()
