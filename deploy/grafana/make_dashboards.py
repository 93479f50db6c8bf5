"""Write the dashboards' JSON, or say with --check whether it is as `boards` has it.

python deploy/grafana/make_dashboards.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards import drift, features, quality, rollout, service

BOARDS = (service.BOARD, features.BOARD, drift.BOARD, quality.BOARD, rollout.BOARD)
FOLDER = Path(__file__).parent / "dashboards"


def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 when a file is not up to date, 2 for other arguments."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}")
        return 2
    files = {
        FOLDER / f"{board.name}.json": json.dumps(board.to_json(), indent=1) + "\n"
        for board in BOARDS
    }
    old = [
        path for path in {*files, *FOLDER.glob("*.json")} if not _holds(path, files.get(path, ""))
    ]
    if not arguments:
        FOLDER.mkdir(exist_ok=True)
        for path in old:
            if path in files:
                path.write_text(files[path], encoding="utf-8")
            else:
                path.unlink()
        return 0
    for path in sorted(old):
        sys.stderr.write(f"{path}: not as boards/ has it; run {Path(__file__).name}\n")
    return 1 if old else 0


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
