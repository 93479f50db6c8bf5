"""Imports run one way: the rules of docs/architecture.md, checked in the sources.

`.pyx` and `.pxd` files are read as text, because no import linter sees cimports.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What each room of fastpath may use besides `_types`, `errors`, `spec` and `c`. A room that is not
# named here fails the test: whoever adds one says where it stands.
ROOMS: dict[str, set[str]] = {
    # models and what they are made of
    "model": set(),
    "forest_trees": set(),
    "forest_masks": {"forest_trees"},
    "forest_layout": {"forest_masks", "forest_trees"},
    "forest": {"forest_layout", "forest_trees", "model"},
    "linear": {"model"},
    "onnx": {"model"},
    # rows
    "protobuf": set(),
    "hashing": set(),
    "request_id": set(),
    "routing": set(),
    "store": set(),
    "scripted_store": {"store"},
    "timings": set(),
    "metrics": {"store", "timings"},
    "wire": {"hashing", "protobuf"},
    "answer": {"protobuf", "stored"},
    "schema": {"hashing"},
    "record": {"schema"},
    "features": {"schema", "wire"},
    "entities": {"wire"},
    "capture": {"metrics", "routing"},
    "ledger": {"metrics"},
    "stored": {"entities", "features", "record", "schema", "store", "wire"},
    "plan": {
        "answer",
        "hashing",
        "ledger",
        "model",
        "record",
        "routing",
        "schema",
        "store",
        "stored",
    },
    "rows": {
        "capture",
        "features",
        "ledger",
        "metrics",
        "plan",
        "request_id",
        "store",
        "stored",
        "wire",
    },
    "waiting": {"metrics", "plan", "rows", "store", "stored"},
    "reading": {"metrics", "rows", "schema", "stored", "waiting"},
    "answering": {
        "answer",
        "capture",
        "ledger",
        "metrics",
        "plan",
        "routing",
        "rows",
        "timings",
        "wire",
    },
    "refusals": {"answering", "plan", "rows", "wire"},
    "engine": {
        "answering",
        "capture",
        "entities",
        "features",
        "ledger",
        "metrics",
        "plan",
        "reading",
        "refusals",
        "request_id",
        "routing",
        "rows",
        "schema",
        "store",
        "waiting",
        "wire",
    },
    # embedded stores
    "lmdb_file": set(),
    "lmdb_map": {"lmdb_file"},
    "store_lmdb": {"lmdb_file", "lmdb_map", "store"},
    "batch_lmdb": {"lmdb_file", "lmdb_map", "store"},
    # the Redis store
    "jitter": set(),
    "redis_options": set(),
    "breaker": {"jitter", "redis_options"},
    "redis_protocol": {"metrics"},
    "redis_tls": {"redis_options"},
    "redis_link": {"jitter", "metrics", "redis_protocol", "redis_tls"},
    "store_redis": {
        "breaker",
        "metrics",
        "record_cache",
        "redis_link",
        "redis_options",
        "redis_protocol",
        "redis_tls",
        "store",
    },
    "record_cache": {"hashing", "metrics"},
    "store_probe": {"poller", "store"},
    "engine_driver": {"engine"},
    "routing_probe": {"plan", "routing"},
    # services
    "service": set(),
    "echo": {"service"},
    "batch_echo": {"service"},
    "scoring": {"capture", "engine", "metrics", "plan", "protobuf", "rows", "service", "store"},
    # transport: knows services by their table only
    "pool": set(),
    "trimmer": set(),
    "grpc_frame": set(),
    "unary": {"grpc_frame", "pool"},
    "answers": {"grpc_frame", "pool", "unary"},
    "http2": {"answers", "pool", "unary"},
    "handover": {"http2", "unary"},
    "listener": set(),
    "poller": set(),
    "reactor": {"handover", "http2", "poller", "pool", "service", "timings"},
    "loop": {"handover", "listener", "reactor", "service", "timings", "trimmer"},
    "sans_io": {"http2", "pool", "service"},
}
SHARED = {"_types", "errors", "spec", "group_spec", "layouts", "c"}
FORBIDDEN_IN_FASTPATH = {"server", "grpc", "google", "asyncio", "logging", "onnxruntime", "bench"}

# Modules that only some parts of server may import.
GRPC_ALLOWED = ("server/control", "server/cli/", "server/demo/")
PROTOBUF_ALLOWED = (*GRPC_ALLOWED, "server/bundle/graph")
# Never in what the serving process imports: they cost memory and start-up time.
HEAVY = {"onnxruntime", "scipy", "sklearn", "pandas", "onnx", "pyarrow", "skl2onnx", "joblib"}
HEAVY_ALLOWED = (
    "server/export/",
    "server/demo/",
    "server/drift/pvalues",  # for reports; server/drift itself never imports it
    "server/features/source",
    "server/feedback/source",  # outcomes in Parquet, for the command line
    "server/cli/export",
    "server/cli/simulate",
    "server/cli/demo",
)

IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", re.MULTILINE)


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a source imports or cimports."""
    return {a or b for a, b in IMPORT.findall(path.read_text())}


def sources(folder: str, *suffixes: str) -> list[Path]:
    found = [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in suffixes]
    assert found, f"no sources below {folder}"
    return [p for p in found if "pb" not in p.relative_to(ROOT).parts]


@pytest.mark.parametrize("path", sources("fastpath", ".pyx", ".pxd", ".py"), ids=lambda p: p.name)
def test_fastpath_imports_run_one_way(path: Path) -> None:
    modules = imports_of(path)
    assert not {m.split(".")[0] for m in modules} & FORBIDDEN_IN_FASTPATH
    inside = {m.split(".")[1] for m in modules if m.startswith("fastpath.")}
    if path.parent.name == "c":
        assert inside <= {"c"}, "fastpath/c holds declarations of C libraries, nothing else"
    elif path.stem in ROOMS:
        assert inside - SHARED - {path.stem} <= ROOMS[path.stem]
    elif path.stem not in SHARED | {"__init__"}:
        pytest.fail(f"{path.name} is a room that ROOMS does not name: say what it may import")


def test_rooms_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room, uses in ROOMS.items() if room not in done and uses <= done}
        assert ready, f"a cycle among {sorted(set(ROOMS) - done)}"
        done |= ready


@pytest.mark.parametrize(
    "path", sources("server", ".py"), ids=lambda p: str(p.relative_to(ROOT / "server"))
)
def test_server_keeps_grpc_protobuf_and_heavy_libraries_in_their_rooms(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    modules = imports_of(path)
    tops = {m.split(".")[0] for m in modules}
    if not name.startswith(GRPC_ALLOWED):
        assert not tops & {"grpc", "grpc_health", "grpc_reflection"}
    if not name.startswith(PROTOBUF_ALLOWED):
        assert not any(m.startswith(("google.protobuf", "server.pb")) for m in modules)
    if not name.startswith(HEAVY_ALLOWED):
        assert not tops & HEAVY


@pytest.mark.parametrize(
    "path",
    [p for f in ("server", "fastpath", "bench") for p in sources(f, ".py", ".pyx")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_hold_one_concept_and_say_which(path: Path) -> None:
    text = path.read_text()
    limit = 600 if path.suffix == ".pyx" else 400
    assert len(text.splitlines()) <= limit, f"over {limit} lines: split it by concept"
    assert text.lstrip().startswith(('"""', 'r"""')), "a module docstring says the rules"


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest knows them by name alone: a whole run would lose the second, parts of it would not."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
