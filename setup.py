"""Builds the Cython extensions of `fastpath` and `bench`. Everything else is in pyproject.toml.

Environment:
  FASTPATH_DEBUG=1      bounds checks, line trace, no optimisation
  FASTPATH_SANITIZE=1   address and undefined-behaviour sanitizers
  FASTPATH_ONLY=a,b     only these modules (a quick rebuild while working on one)
"""

import os
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# In step with deploy/native.sh.
DEBIAN_LINE = (
    "apt-get install -y build-essential pkg-config python3-dev "
    "libnghttp2-dev liblmdb-dev libhiredis-dev libssl-dev"
)

# Which modules link which native library, as pkg-config names them. Others need none.
USERS = {
    "libnghttp2": (
        *("answers", "handover", "http2", "loop", "reactor", "sans_io"),  # fastpath
        *("arena", "check", "client", "driver", "generator", "links", "tally"),  # bench
    ),
    "lmdb": ("batch_lmdb", "lmdb_map", "store_lmdb", "bare_gets"),
    "hiredis": ("bare_gets", "redis_link", "redis_protocol", "store_redis"),
    "openssl": ("redis_link", "redis_tls", "store_redis"),
}
MINIMUM = {"libnghttp2": "1.43", "lmdb": "0.9.22", "hiredis": "0.14", "openssl": "3.0"}

DEBUG = os.environ.get("FASTPATH_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPATH_SANITIZE") == "1"

# -ffp-contract=off: a fused multiply-add would change scores between machines.
COMPILE = ["-std=c11", "-ffp-contract=off", "-fvisibility=hidden"]
COMPILE += ["-Wno-unused-function", "-Wno-sign-compare"]  # generated code's own
COMPILE += ["-O0", "-g"] if DEBUG else ["-O3", "-g1"]
LINK: list[str] = []
if SANITIZE:
    COMPILE += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    LINK += ["-fsanitize=address,undefined"]

DIRECTIVES = {
    "language_level": "3",
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "linetrace": DEBUG,
    "embedsignature": True,
}


def pkg_config(library: str, flag: str) -> list[str]:
    """Ask pkg-config; end with the line that installs what is missing."""
    want = f"{library} >= {MINIMUM.get(library, '0')}"
    try:
        answer = subprocess.run(
            ["pkg-config", "--print-errors", flag, want], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        sys.exit(f"setup.py: pkg-config is missing. On Debian:\n  {DEBIAN_LINE}")
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[0] if error.stderr else "not found"
        sys.exit(f"setup.py: {want} is needed ({reason}). On Debian:\n  {DEBIAN_LINE}")
    return answer.stdout.split()


def extension(source: Path) -> Extension:
    """One module, with the libraries that it declares."""
    libraries = [library for library, modules in USERS.items() if source.stem in modules]
    return Extension(
        f"{source.parent.name}.{source.stem}",
        [str(source)],
        include_dirs=[str(source.parent)],
        depends=[str(header) for header in source.parent.glob("*.h")],
        extra_compile_args=COMPILE + [f for lib in libraries for f in pkg_config(lib, "--cflags")],
        extra_link_args=LINK + [f for lib in libraries for f in pkg_config(lib, "--libs")],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if DEBUG else [],
    )


class BuildExt(build_ext):
    """Says which module was compiled: the C compiler takes minutes, and says nothing itself."""

    def run(self) -> None:
        """Build all of them."""
        self.n_done = 0
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Build one, unless it is newer than its sources."""
        built = Path(self.get_ext_fullpath(ext.name))
        before = built.stat().st_mtime_ns if built.exists() else None
        super().build_extension(ext)
        self.n_done += 1
        if built.exists() and built.stat().st_mtime_ns != before:
            print(f"[{self.n_done:2}/{len(self.extensions)}] {ext.name}", flush=True)


only = [name for name in os.environ.get("FASTPATH_ONLY", "").split(",") if name]
found = [*Path("fastpath").glob("*.pyx"), *Path("bench").glob("*.pyx")]
sources = sorted(path for path in found if not only or path.stem in only)
# A query such as `--version` needs no compiler, no library and no generated C.
BUILDS = {"build", "build_ext", "develop", "bdist_wheel", "editable_wheel", "install"}
wanted = sources if BUILDS & set(sys.argv) else []
setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize(
        [extension(source) for source in wanted],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
        annotate=DEBUG,
        nthreads=0,
    ),
)
