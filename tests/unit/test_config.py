"""Settings: one place, three sources, one precedence, clear refusals."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import CATALOGUE, load_settings, to_toml
from server.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "serve.toml"
    file.write_text(text, encoding="utf-8")
    return file


def scoregate(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestPrecedence:
    def test_flag_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[fast]\nport = 1\nloops = 2\nspin_us = 3\n")
        environ = {"SCOREGATE_FAST_PORT": "11", "SCOREGATE_FAST_LOOPS": "12"}
        found = load_settings(file, environ, {"fast.port": "21"})
        fast = found.settings.fast
        assert (fast.port, fast.loops, fast.spin_us) == (21, 12, 3)
        assert fast.max_connections == 10_000
        assert found.origins["fast.port"] == "flag --fast-port"
        assert found.origins["fast.loops"] == "environment SCOREGATE_FAST_LOOPS"
        assert found.origins["fast.spin_us"] == f"file {file}"
        assert found.origins["fast.max_connections"] == "default"

    def test_the_environment_is_text_and_the_file_is_not(self, tmp_path: Path) -> None:
        environ = {
            "SCOREGATE_CONTROL_INSECURE": "true",
            "SCOREGATE_DRAIN_GRACE_S": "2.5",
            "SCOREGATE_MODELS": "fraud, other@2",
        }
        found = load_settings(environ=environ).settings
        assert found.control.insecure is True
        assert found.drain.grace_s == 2.5
        assert found.models == ("fraud", "other@2")
        with pytest.raises(ConfigError, match=r"control\.insecure: 'true' is not allowed"):
            load_settings(write(tmp_path, '[control]\ninsecure = "true"\n'))

    def test_variables_that_are_not_ours_are_not_looked_at(self) -> None:
        load_settings(environ={"SCOREGATE_SERVICE_HOST": "10.0.0.1", "SCOREGATE_PORT": "tcp://x"})

    def test_a_path_in_a_file_counts_from_the_file(self, tmp_path: Path) -> None:
        file = write(tmp_path, 'repository = "repo"\n[fast]\nunix_socket = "/run/x"\n')
        found = load_settings(file).settings
        assert found.repository == str(tmp_path / "repo")
        assert found.fast.unix_socket == "/run/x"
        assert load_settings(flags={"repository": "repo"}).settings.repository == "repo"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[fast]\nport = 65536\n", "fast.port: 65536 is not allowed; expected a whole number"),
            ("[fast]\nport = -1\n", "from 0 to 65535"),
            ('[fast]\nport = "80"\n', "fast.port: '80' is not allowed"),
            ("[fast]\nport = true\n", "fast.port: True is not allowed"),
            ("[fast]\nprot = 1\n", "fast.prot: unknown setting; did you mean fast.port?"),
            ("[fats]\nport = 1\n", "fats: unknown setting; did you mean fast?"),
            ("grace_s = 1\n", "grace_s: unknown setting; did you mean drain.grace_s?"),
            ("[log]\nfoo = 1\n", "log.foo: unknown setting; known in [log]: level, format"),
            ("[nothing]\nx = 1\n", "nothing: unknown setting; known at the top: repository, "),
            ("fast = 1\n", "fast: expected a table, written [fast]"),
            ('[log]\nformat = "xml"\n', "expected one of 'json', 'text'"),
            ("[drain]\ngrace_s = nan\n", "drain.grace_s: nan is not allowed; expected a number"),
            ("[drain]\ngrace_s = inf\n", "drain.grace_s: inf is not allowed"),
            ('models = ["a@b@c"]\n', "expected a list of MODEL or MODEL@VERSION"),
            ('[control]\naddress = "0.0.0.0"\n', "--insecure-control (control.insecure = true)"),
            ("[fast\n", "not valid TOML: "),
            ("port = 1\nport = 2\n", "not valid TOML: "),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        file = write(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            load_settings(file)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        if "control.address" not in str(caught.value):
            assert str(caught.value).startswith(f"{file}: ")

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read: No such file"):
            load_settings(tmp_path / "nope.toml")
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load_settings(tmp_path)
        (tmp_path / "latin.toml").write_bytes(b'repository = "\xe9"\n')
        with pytest.raises(ConfigError, match="not UTF-8 at byte 14"):
            load_settings(tmp_path / "latin.toml")

    def test_the_environment_and_flags_are_named(self) -> None:
        with pytest.raises(
            ConfigError, match=r"^SCOREGATE_FAST_PORT: 'tcp://10\.0\.0\.1:1' is not"
        ):
            load_settings(environ={"SCOREGATE_FAST_PORT": "tcp://10.0.0.1:1"})
        with pytest.raises(ConfigError, match=r"^--fast-loops: '0' is not allowed"):
            load_settings(flags={"fast.loops": "0"})

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
    def test_loopback_needs_no_permission(self, address: str) -> None:
        load_settings(flags={"control.address": address})

    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
    def test_other_addresses_of_the_control_port_do(self, address: str) -> None:
        with pytest.raises(ConfigError, match="needs access tokens and TLS"):
            load_settings(flags={"control.address": address})
        load_settings(flags={"control.address": address, "control.insecure": True})


class TestCatalogue:
    def test_every_name_is_unique_and_every_setting_explained(self) -> None:
        settings_ = CATALOGUE.values()
        assert len({setting.env for setting in settings_}) == len(CATALOGUE)
        assert len({setting.flag for setting in settings_}) == len(CATALOGUE)
        for setting in settings_:
            assert setting.help.endswith(".")
            assert setting.allowed
            assert setting.convert(setting.default, "default", is_text=False) == setting.default

    def test_names_follow_from_the_path(self) -> None:
        setting = CATALOGUE["fast.max_message_bytes"]
        assert setting.env == "SCOREGATE_FAST_MAX_MESSAGE_BYTES"
        assert setting.flag == "--fast-max-message-bytes"


@st.composite
def trees(draw: st.DrawFn) -> dict[str, object]:
    """Texts as the command line gives them, for any subset of the settings."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    values = {
        "flag": st.booleans(),
        "text": text,
        "path": text,
        "list": st.lists(st.from_regex(r"[a-z.]{1,9}(@[0-9.]{1,9})?", fullmatch=True), min_size=1),
    }
    chosen = {}
    for path, setting in CATALOGUE.items():
        if setting.kind in ("integer", "number"):
            low, high = (float(n) for n in re.findall(r"[-\d.]+(?:e[+-]?\d+)?", setting.allowed))
            whole = st.integers(int(low), int(high)).map(str)
            real = st.floats(low, high, exclude_min="above" in setting.allowed).map(repr)
            choice: st.SearchStrategy[object] = whole if setting.kind == "integer" else real
        else:
            choice = values[setting.kind]
        if setting.allowed.startswith("one of"):
            choice = st.sampled_from([part.strip("' ") for part in setting.allowed[7:].split(",")])
        elif setting.allowed.startswith("text of") or path in ("repository", "redis.address"):
            choice = text.filter(bool)
        if path == "control.address":
            choice = st.just("::1")
        if path == "features.online":
            choice = st.just("none")  # "lmdb" needs a directory beside it
        if path.startswith("control.tls_"):
            choice = st.just("")  # they go together
        if path == "rollout.versions":
            choice = st.sampled_from(["serving", "all", "latest:3"])
        if path == "redis.hedge_after_us":
            choice = st.just("0")  # more needs a replica
        if path == "fast.realtime":
            choice = st.just(False)  # not together with fast.spin_us
        if path == "events.webhook_url":
            choice = st.sampled_from(["", "http://127.0.0.1:9/hook", "https://example.org"])
        chosen[path] = choice
    return draw(st.fixed_dictionaries({}, optional=chosen))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(flags=trees())
def test_what_is_shown_reads_back(
    tmp_path_factory: pytest.TempPathFactory, flags: dict[str, object]
) -> None:
    shown = load_settings(flags=flags)
    file = tmp_path_factory.mktemp("config") / "shown.toml"
    file.write_text(to_toml(shown), encoding="utf-8")
    # Relative paths of a file count from the file: compare what is not a path.
    again = load_settings(file).settings
    for path, setting in CATALOGUE.items():
        one: object = shown.settings
        other: object = again
        for part in path.split("."):
            one, other = getattr(one, part), getattr(other, part)
        if setting.kind == "path" and one:
            one = str(file.parent / str(one))
        assert one == other, path


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"fast.realtime": True, "fast.spin_us": "5"}, "set fast.spin_us to 0"),
        ({"events.webhook_url": "example.org/hook"}, "expected http://HOST"),
        ({"events.webhook_url": "http:///hook"}, "expected http://HOST"),
    ],
)
def test_settings_that_do_not_fit_are_refused(flags: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_settings(flags=flags)


class TestCommands:
    def test_check_accepts(self, tmp_path: Path) -> None:
        done = scoregate("config", "check", str(write(tmp_path, "[fast]\nport = 0\n")))
        assert (done.returncode, done.stdout[-5:]) == (0, ": ok\n")

    def test_check_refuses_in_one_line(self, tmp_path: Path) -> None:
        done = scoregate("config", "check", str(write(tmp_path, "[fast]\nport = 70000\n")))
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "fast.port: 70000 is not allowed; expected a whole number from 0" in done.stderr

    def test_show_names_origins(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[fast]\nport = 7\n")
        done = scoregate(
            "config", "show", "--config", str(file), "--log-level", "debug", "--models", "a,b@1",
            SCOREGATE_SIDECAR_PORT="9",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"port = 7  # file {file}" in done.stdout
        assert 'level = "debug"  # flag --log-level' in done.stdout
        assert 'models = ["a", "b@1"]  # flag --models' in done.stdout
        assert "port = 9  # environment SCOREGATE_SIDECAR_PORT" in done.stdout
        assert "port = 50052  # default" in done.stdout

    def test_help_teaches_every_setting(self) -> None:
        done = scoregate("serve", "--help", COLUMNS="300", TERMINAL_WIDTH="300")
        assert done.returncode == 0
        folded = " ".join(done.stdout.split())
        for setting in CATALOGUE.values():
            assert setting.flag in done.stdout
            assert setting.env in folded
