"""py-lmdb in a process of its own: LMDB may be opened once per process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CODE = """
import sys, lmdb
env = lmdb.open({path!r}, map_size={map_bytes}, max_readers={max_readers})
txn = None
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""


class LmdbProcess:
    """Evaluates expressions over `env`, a py-lmdb environment, in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, expression: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the writer process died"
        return eval(answer)

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Store some items in one transaction."""
        self(
            f"[(t.cursor().putmulti({list(items.items())!r}), t.commit()) "
            "for t in [env.begin(write=True)]] and None"
        )


@contextmanager
def lmdb_process(
    path: Path, *, map_bytes: int = 1 << 26, max_readers: int = 126
) -> Iterator[LmdbProcess]:
    path.mkdir(parents=True, exist_ok=True)
    code = CODE.format(path=str(path), map_bytes=map_bytes, max_readers=max_readers)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield LmdbProcess(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def write_environment(path: Path, items: Mapping[bytes, bytes], **options: Any) -> None:
    """Write an environment with py-lmdb, here, and close it before anybody of ours opens it."""
    import lmdb

    path.mkdir(parents=True, exist_ok=True)
    options = {"map_size": 1 << 26, **options}
    with lmdb.open(str(path), **options) as env, env.begin(write=True) as txn:
        for key, value in items.items():
            txn.put(key, value)
