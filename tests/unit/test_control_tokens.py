"""The tokens file: its form, who may write to it, and that a server follows it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.cli import scoregate
from server.control.tokens import (
    Role,
    TokenFile,
    change_tokens,
    new_token,
    read_tokens,
    write_tokens,
)
from server.errors import InputError
from tests.support.control import tokens_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def run(*args: str) -> Result:
    return CliRunner().invoke(scoregate, ["token", *args])


class TestFile:
    def test_keeps_the_hash_and_never_the_secret(self, path: Path) -> None:
        secrets = tokens_file(path, alice="operate", bob="read")
        text = path.read_text("utf-8")
        assert all(secret not in text for secret in secrets.values())
        table = tomllib.loads(text)["token"][0]
        assert table["sha256"] == hashlib.sha256(secrets["alice"].encode()).hexdigest()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [(t.name, t.rank) for t in read_tokens(path)] == [
            ("alice", Role.OPERATE),
            ("bob", Role.READ),
        ]

    def test_secrets_have_256_bits_and_differ(self) -> None:
        secrets = {new_token("x", "read")[1] for _ in range(100)}
        assert len(secrets) == 100
        assert {len(secret) for secret in secrets} == {len("sgt_") + 43}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[token", "Expected"),
            ('[[token]]\nname = "a"', "missing required field"),
            (
                '[[token]]\nname="a"\nrole="root"\ncreated=""\nsha256="' + "0" * 64 + '"',
                "role",
            ),
            ('[[tokens]]\nname = "a"', "unknown field `tokens`"),
            (
                '[[token]]\nname="a"\nrole="read"\ncreated=""\nsha256="00"',
                "sha256",
            ),
            ("\xff", "utf-8"),
        ],
    )
    def test_what_is_not_of_its_form_is_refused(self, path: Path, text: str, message: str) -> None:
        path.write_bytes(text.encode("latin-1"))
        path.chmod(0o600)
        with pytest.raises(InputError, match=message) as caught:
            read_tokens(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("what", ["name", "sha256"])
    def test_twins_are_refused(self, path: Path, what: str) -> None:
        first, _ = new_token("a", "read")
        second, _ = new_token("a" if what == "name" else "b", "read")
        if what == "sha256":
            second = type(second)("b", "admin", "", first.sha256)
        write_tokens(path, [first, second])
        with pytest.raises(InputError, match=f"{what} .* stands there twice"):
            read_tokens(path)

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_one_that_others_may_write_to_is_refused(self, path: Path, mode: int) -> None:
        tokens_file(path, alice="read")
        path.chmod(mode)
        with pytest.raises(InputError, match=r"others may write to it .*chmod 600"):
            read_tokens(path)

    def test_one_that_others_may_read_is_warned_about(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        tokens_file(path, alice="read")
        TokenFile(path)
        assert "0600" not in caplog.text
        path.chmod(0o644)
        TokenFile(path)
        assert "mode 0644; 0600 is enough" in caplog.text

    def test_what_is_not_a_file_is_refused(self, path: Path) -> None:
        with pytest.raises(InputError, match="`scoregate token new` makes one"):
            TokenFile(path)
        os.mkfifo(path)
        with pytest.raises(InputError, match="not a regular file"):
            TokenFile(path)

    def test_a_failed_change_leaves_it_and_nothing_aside(self, path: Path) -> None:
        tokens_file(path, alice="read")
        before = path.read_bytes()

        def refuse(_: object) -> list[object]:
            raise InputError("no")

        with pytest.raises(InputError, match="no"):
            change_tokens(path, refuse)  # type: ignore[arg-type]
        assert path.read_bytes() == before
        assert [*path.parent.iterdir()] == [path]

    def test_a_symbolic_link_stays_one(self, path: Path) -> None:
        link = path.with_name("link.toml")
        tokens_file(path, alice="read")
        link.symlink_to(path)
        change_tokens(link, lambda tokens: [*tokens, new_token("bob", "read")[0]])
        assert link.is_symlink()
        assert [t.name for t in read_tokens(path)] == ["alice", "bob"]


class TestFollowing:
    def test_a_change_counts_at_once(self, path: Path) -> None:
        old = tokens_file(path, alice="read")
        tokens = TokenFile(path)
        found = tokens.find(old["alice"])
        assert found is not None
        assert found.name == "alice"
        assert tokens.find("") is None
        assert tokens.find(old["alice"] + "x") is None
        new = tokens_file(path, bob="admin")
        assert tokens.find(old["alice"]) is None
        assert tokens.find(new["bob"]) is not None

    @pytest.mark.parametrize("damage", ["broken", "gone", "writable"])
    def test_a_bad_file_leaves_the_former_tokens_and_is_logged_once(
        self, path: Path, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        secrets = tokens_file(path, alice="read")
        tokens = TokenFile(path)
        if damage == "broken":
            path.write_text("[[token")
        elif damage == "gone":
            path.unlink()
        else:
            path.chmod(0o666)
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                assert tokens.find(secrets["alice"]) is not None
        assert caplog.text.count("the former tokens stay in force") == 1
        path.unlink(missing_ok=True)
        again = tokens_file(path, carol="read")
        assert tokens.find(again["carol"]) is not None
        assert tokens.find(secrets["alice"]) is None


class TestCommand:
    def test_new_list_revoke(self, path: Path) -> None:
        made = run("new", "--name", "alice", "--role", "operate", "--file", str(path))
        assert made.exit_code == 0
        secret = made.stdout.strip()
        assert "SCOREGATE_TOKEN" in made.stderr
        assert "--token-file" in made.stderr
        found = TokenFile(path).find(secret)
        assert found is not None
        assert (found.name, found.role) == ("alice", "operate")
        made = run("new", "--name", "bob", "--role", "read", "--file", str(path), "--json")
        assert json.loads(made.stdout)["name"] == "bob"
        listed = run("list", "--file", str(path), "--json")
        assert [(t["name"], t["role"]) for t in json.loads(listed.stdout)] == [
            ("alice", "operate"),
            ("bob", "read"),
        ]
        listed = run("list", "--file", str(path))
        assert listed.stdout.splitlines()[0].split()[:2] == ["alice", "operate"]
        assert secret not in listed.stdout
        assert found.sha256 not in listed.stdout
        assert run("revoke", "alice", "--file", str(path)).exit_code == 0
        assert TokenFile(path).find(secret) is None

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["new", "--name", "alice", "--role", "read"], "there is a token alice already"),
            (["new", "--name", "a b", "--role", "read"], "1 to 64 letters"),
            (["new", "--name", 'x"\n', "--role", "read"], "1 to 64 letters"),
            (["revoke", "bob"], "no token bob; there is alice"),
        ],
    )
    def test_refusals_change_nothing(self, path: Path, args: list[str], message: str) -> None:
        tokens_file(path, alice="read")
        before = path.read_bytes()
        result = run(*args, "--file", str(path))
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
        assert path.read_bytes() == before

    def test_a_missing_file(self, path: Path) -> None:
        for args in (["list"], ["revoke", "x"]):
            result = run(*args, "--file", str(path))
            assert isinstance(result.exception, InputError)
        result = run("new", "--name", "a", "--role", "read", "--file", str(path / "no" / "t"))
        assert isinstance(result.exception, InputError)
