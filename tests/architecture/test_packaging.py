"""What a machine needs is said in three places: deploy/native.sh, setup.py, pyproject.toml."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "deploy" / "native.sh"


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(NATIVE), *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_native_script_is_whole_and_says_what_it_does() -> None:
    subprocess.run(["bash", "-n", str(NATIVE)], check=True)
    shown = run("--help")
    assert shown.returncode == 0
    assert "deploy/native.sh [build|redis|prometheus|test]" in shown.stdout
    assert "set -e" not in shown.stdout  # the comment, and no code
    wrong = run("everything")
    assert wrong.returncode == 2
    assert "unknown profile 'everything': give build, redis, prometheus or test" in wrong.stderr


@pytest.mark.parametrize("profile", ["build", "redis", "prometheus", "test"])
def test_nothing_is_installed_where_everything_is_there(profile: str, tmp_path: Path) -> None:
    """The tests run on a machine that `make test` has prepared."""
    apt = tmp_path / "apt-get"  # whatever else is missing, this test installs nothing
    apt.write_text("#!/bin/sh\nexit 99\n")
    apt.chmod(0o755)
    done = run(profile, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("has_sudo", [True, False])
def test_without_root_it_prints_the_line_to_type(has_sudo: bool) -> None:
    """A bare machine, and a user who has to type a password, or to ask an administrator."""
    user = 65534 if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:  # root's tmp_path is closed to other users
        Path(folder).chmod(0o755)
        programs = {"apt-get": "exit 99", **({"sudo": "exit 1"} if has_sudo else {})}
        for name, line in programs.items():
            program = Path(folder) / name
            program.write_text(f"#!/bin/sh\n{line}\n")
            program.chmod(0o755)
        done = subprocess.run(
            ["/bin/bash", "-s", "test"],
            input=NATIVE.read_text(),
            env={"PATH": folder},
            cwd="/",
            user=user,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    [reason, line, _] = done.stderr.splitlines()
    assert ("there is no sudo; as root: type" in reason) is not has_sudo
    update, _, install = line.strip().partition(" && ")
    assert update == f"{'sudo ' * has_sudo}apt-get update"
    assert install.startswith(f"{'sudo ' * has_sudo}apt-get install -y --no-install-recommends ")
    for package in ("make", "build-essential", "libnghttp2-dev", "python3-venv", "curl"):
        assert f" {package}" in install, package


def test_setup_and_native_script_name_the_same_libraries() -> None:
    listed = re.findall(r"^(\S+-dev) (\S+) >= (\S+)$", NATIVE.read_text(), re.MULTILINE)
    assert len(listed) == 4
    setup = (ROOT / "setup.py").read_text()
    [minimum] = re.findall(r"^MINIMUM = (\{.*\})$", setup, re.MULTILINE)
    wanted = dict(re.findall(r'"(\w+)": "([\d.]+)"', minimum))
    assert {library: version for _, library, version in listed} == wanted
    [line] = re.findall(r"DEBIAN_LINE = \((.*?)\)", setup, re.DOTALL)
    named = {word for text in re.findall(r'"(.*?)"', line) for word in text.split()}
    assert {package for package, _, _ in listed} <= named
    assert {"build-essential", "pkg-config", "python3-dev"} <= named


def test_a_wheel_has_every_file_that_pages_and_types_need() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in data["package-data"].items():
        folder = ROOT / package
        listed = {path for pattern in patterns for path in folder.glob(pattern)}
        wanted = {
            path
            for path in folder.rglob("*")
            if path.suffix in {".css", ".js", ".pyi", ".pxd", ".h", ".typed"}
        }
        assert wanted <= listed, package


def test_every_direct_dependency_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    make = (ROOT / "Makefile").read_text()
    [installed] = re.findall(r"-e '\.\[(.*?)\]'", make)
    assert {"train", "features", "bench", "dev"} <= set(installed.split(",")) <= set(extras)
    named = [*project["dependencies"]]
    for extra in installed.split(","):
        named += extras[extra]
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in named:
        name = re.split(r"[<>=!~ \[;]", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, requirement
