"""Calls to the control port: options, channel, token, TLS, and what a failed call means.

Rules
-----
* A command that calls takes a `Remote` first, and gets it from `remote_options`; a command that
  changes what serves takes a `Change` too, from `change_options`.
* A token comes from a file or the environment, never from the command line, where every user of
  the machine could read it. It crosses a network only inside TLS, unless told otherwise.
* Exit code 2 where the call itself is to blame: mending and repeating it is up to the caller. 1
  where it is not: nobody there, not allowed, or another change came first (ABORTED).

grpc is imported when a call is made: `--help` does not wait for it.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from server.cli.arguments import GENERATION
from server.cli.explained import explain
from server.errors import InputError

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

    from server.pb.scoregate.v1 import control_pb2 as pb

SERVICE = "/scoregate.v1.Control"
DEFAULT_ADDRESS = "127.0.0.1:50052"
# An answer to a change holds the plan before and after it, and each model of a plan may pin ten
# thousand keys of a kilobyte. gRPC's own limit, 4 MiB, is less than that.
MAX_ANSWER_BYTES = 256 << 20
EXIT_CODES = (
    "Exit codes: 0 done; 2 the command cannot be carried out as given (INVALID_ARGUMENT, "
    "NOT_FOUND, FAILED_PRECONDITION): change it; 1 it could be, but not here and now: no answer, "
    "not allowed, changes are frozen, or another change came first (ABORTED): look, then decide "
    "again."
)

Answer = TypeVar("Answer", bound="Message")
Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the control port is, and how to call it. Options are `remote_options`'."""

    address: str
    token_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    timeout_s: float = 30.0

    def call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        """Make one call.

        Raises
        ------
        InputError
            An option cannot be used, or the server blames the call.
        CallError
            No answer, or another failure.
        """
        with self._calling(method) as channel:
            made = self._unary(channel, method, answer)
            return cast("Answer", made(request, timeout=self.timeout_s, metadata=self._metadata()))

    def stream(self, method: str, request: Message, answer: type[Answer]) -> Iterator[Answer]:
        """Yield the answers of a call that goes on until the server, or the caller, ends it."""
        with self._calling(method) as channel:
            made = self._streaming(channel, method, answer)
            yield from made(request, metadata=self._metadata())

    def first(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        """Return the first answer of a call that would go on, and end it."""
        with self._calling(method) as channel:
            made = self._streaming(channel, method, answer)
            answers = made(request, timeout=self.timeout_s, metadata=self._metadata())
            try:
                return cast("Answer", next(answers))
            finally:
                answers.cancel()

    def exchange(
        self, method: str, requests: Iterator[Message], answer: type[Answer]
    ) -> Iterator[Answer]:
        """Yield the answers of a call with many requests.

        Raises
        ------
        CallError
            No answer for `timeout_s`, or another failure.
        """
        with self._calling(method) as channel:
            made: Any = channel.stream_stream(
                _full(method),
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            answers = made(requests, metadata=self._metadata())
            overdue = threading.Event()

            def give_up() -> None:
                overdue.set()
                answers.cancel()

            try:
                while True:
                    timer = threading.Timer(self.timeout_s, give_up)
                    timer.daemon = True
                    timer.start()
                    try:
                        one = next(answers, None)
                    finally:
                        timer.cancel()
                    if one is None:
                        return
                    yield cast("Answer", one)
            except BaseException:
                answers.cancel()
                if overdue.is_set():
                    raise explain("DEADLINE_EXCEEDED", None, self.address, method) from None
                raise

    @contextmanager
    def _calling(self, method: str) -> Iterator[grpc.Channel]:
        """Open a channel, and turn what goes wrong with a call into errors for people."""
        # grpc's core would write to stderr what is reported here.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        with self._channel() as channel:
            try:
                yield channel
            except grpc.RpcError as error:
                failed = cast("grpc.Call", error)
                raise explain(failed.code().name, failed.details(), self.address, method) from None

    def _unary(self, channel: grpc.Channel, method: str, answer: type[Answer]) -> Any:
        return channel.unary_unary(
            _full(method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def _streaming(self, channel: grpc.Channel, method: str, answer: type[Answer]) -> Any:
        return channel.unary_stream(
            _full(method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def _channel(self) -> grpc.Channel:
        import grpc

        options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
        if not (self.tls or self.tls_ca or self.tls_certificate or self.tls_key):
            return grpc.insecure_channel(self.address, options)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InputError("--tls-certificate and --tls-key belong together: give both")
        read = [
            None if path is None else read_file(path)
            for path in (self.tls_ca, self.tls_key, self.tls_certificate)
        ]
        credentials = grpc.ssl_channel_credentials(*read)
        return grpc.secure_channel(self.address, credentials, options)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._token()
        if not token:
            return ()
        encrypted = self.tls or self.tls_ca or self.tls_certificate
        if not (encrypted or self.insecure or is_local(self.address)):
            raise InputError(
                f"the token would cross the network to {self.address} for everybody to read: give "
                "--tls (or --tls-ca FILE), or --insecure to send it all the same"
            )
        return (("authorization", f"Bearer {token}"),)

    def _token(self) -> str:
        if self.token_file is None:
            token, where = os.environ.get("SCOREGATE_TOKEN", "").strip(), "SCOREGATE_TOKEN"
        else:
            token = read_file(self.token_file).decode("latin-1").strip()
            where = str(self.token_file)
            if not token:
                raise InputError(f"{where}: empty; `scoregate token new` makes a token")
        if not all("!" <= letter <= "~" for letter in token):
            raise InputError(f"{where}: not a token: one line of letters and digits is expected")
        return token


def _full(method: str) -> str:
    """Return a method's path; one without a service is Control's."""
    return method if method.startswith("/") else f"{SERVICE}/{method}"


@dataclass(frozen=True, slots=True)
class Change:
    """What every change of what serves can be told. Options are `change_options`'."""

    why: str
    expect: int
    dry_run: bool
    who: str
    as_json: bool

    def options(self) -> pb.ChangeOptions:
        """Return it as the server takes it."""
        from server.pb.scoregate.v1 import control_pb2 as pb

        return pb.ChangeOptions(
            why=self.why, expected_generation=self.expect, dry_run=self.dry_run, who=self.who
        )


def is_local(address: str) -> bool:
    """Whether calls to an address stay on this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_file(path: Path) -> bytes:
    """Return what a file that an option names holds.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def default_who() -> str:
    """Return USER@host of whoever types."""
    user = os.environ.get("USER", "")
    if not user:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def to_json(message: Message, *, indent: int | None = 2) -> str:
    """Return a message in protobuf's JSON mapping, with the names of the proto file."""
    from google.protobuf import json_format

    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=indent,
    )


def _path(flag: str, words: str) -> Callable[[Command], Command]:
    return click.option(flag, metavar="FILE", type=click.Path(path_type=Path), help=words)


_REMOTE = (
    click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        show_default=True,
        envvar="SCOREGATE_CONTROL",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server's control port; unix:PATH for a Unix socket.",
    ),
    click.option(
        "--token-file",
        envvar="SCOREGATE_TOKEN_FILE",
        show_envvar=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A file with the token that says who calls. Without it: SCOREGATE_TOKEN, which holds "
        "the token itself.",
    ),
    click.option("--tls", is_flag=True, help="Call with TLS; the other --tls options imply it."),
    _path("--tls-ca", "Certificates to trust, PEM.  [default: grpc's own]"),
    _path("--tls-certificate", "Our certificate, PEM, where the server wants one."),
    _path("--tls-key", "Its private key, PEM."),
    click.option("--insecure", is_flag=True, help="Send the token without TLS over a network."),
    click.option(
        "--timeout-s",
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="How long to wait for an answer.",
    ),
)
_CHANGE = (
    click.option("--why", default="", help="Goes into the journal."),
    click.option(
        "--expect",
        default=0,
        metavar="GENERATION",
        type=GENERATION,
        help="Fail (ABORTED) where another generation is in force than the one you looked at.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing."),
    click.option(
        "--who",
        metavar="NAME",
        help="Your name for the journal, where the server knows no tokens.  [default: $USER@host]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON."),
)


def remote_options(command: Command) -> Command:
    """Add the options of a call; the command gets a `Remote` as `remote`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        remote = Remote(**{name: given.pop(name) for name in Remote.__dataclass_fields__})
        command(remote=remote, **given)

    return _with(gathered, _REMOTE)


def change_options(command: Command) -> Command:
    """Add the options of a call that changes what serves: `remote`, and a `Change` as `change`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        given["who"] = given["who"] or default_who()
        remote = Remote(**{name: given.pop(name) for name in Remote.__dataclass_fields__})
        change = Change(**{name: given.pop(name) for name in Change.__dataclass_fields__})
        command(remote=remote, change=change, **given)

    return _with(gathered, (*_CHANGE, *_REMOTE))


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
model_option = click.option(
    "--model", default="", metavar="MODEL", help="Which model.  [default: the default model]"
)
