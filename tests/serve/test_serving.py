"""The server as a process and as a socket: its address, its end, and its patience."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from civae_cli.app import app as command_line
from civae_core.data import PreparedData

if TYPE_CHECKING:
    import uvicorn

    from civae_core.serve.limits import Limits
    from civae_core.serve.studio import Studio


@contextmanager
def serving(app: Any, limits: "Limits") -> Iterator[tuple[int, "uvicorn.Server"]]:
    """The port where an application answers, and what answers there."""
    from civae_core.serve.server import listen, server_of

    listening = listen("127.0.0.1", 0)
    server = server_of(app, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


Page = Callable[[float], int]


@pytest.fixture
def page(make_studio: Callable[..., "Studio"]) -> Iterator[Page]:
    """The port where a page answers that waits for at most so many seconds of silence."""
    from civae_core.serve.app import make_app
    from civae_core.serve.limits import Limits

    with ExitStack() as stack:

        def opened(silence_seconds: float) -> int:
            limits = Limits(silence_seconds=silence_seconds)
            return stack.enter_context(serving(make_app(make_studio(limits)), limits))[0]

        yield opened


PATIENCE_S = 60
"""How long a busy machine may take for what takes a moment."""
HEAD = b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"", 0),
        (HEAD, 0),
        (HEAD + b"\r\n", 1),
        (HEAD + b"\r\n" + HEAD, 1),
        (HEAD + b"\r\n" + HEAD + b"\r\n", 2),
    ],
    ids=["nothing", "half a head", "a request", "a request and a half", "two requests"],
)
def test_connections_that_fall_silent_are_closed(page: Page, sent: bytes, answers: int) -> None:
    def answered(silence_seconds: float) -> int:
        received = b""
        with (
            socket.create_connection(("127.0.0.1", page(silence_seconds)), timeout=PATIENCE_S) as client,
            suppress(ConnectionError),
        ):
            client.sendall(sent)
            while data := client.recv(2**16):
                received += data
        return received.count(b"HTTP/1.1 200 OK")

    # Where the machine stalls between connecting and sending, the client has fallen silent too early.
    assert any(answered(seconds) == answers for seconds in ((1, 10, 40) if answers else (0.3,)))


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(page: Page) -> None:
    port = page(0.3)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client, pytest.raises(OSError):
        for byte in HEAD * 100:  # for a minute and a half
            client.sendall(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - started < PATIENCE_S


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 20 MB."""
    from starlette.responses import Response

    await Response(bytes(20 * 2**20))(scope, receive, send)


def begun(port: int, headers: bytes = b"") -> tuple[socket.socket, bytes]:
    """A connection with the first bytes of its answer; not the first where the machine stalled and let that lapse."""
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        with suppress(ConnectionError):
            client.sendall(HEAD + headers + b"\r\n")
            if start := client.recv(12):
                return client, start
        client.close()
    raise AssertionError("closed without an answer")


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_fetches_nothing_of_an_answer_makes_room_for_others() -> None:
    from civae_core.serve.guard import LOCAL, Guard
    from civae_core.serve.limits import Limits

    limits = Limits(silence_seconds=1, connections=4)
    with serving(Guard(large, LOCAL, False, limits), limits) as (port, server), ExitStack() as stack:
        for _ in range(3):
            client, start = begun(port)
            stack.enter_context(client)
            assert start == b"HTTP/1.1 200"

        def is_answered() -> bool:
            visitor, start = begun(port)
            visitor.close()
            return start == b"HTTP/1.1 200"

        wait_until(is_answered)
        wait_until(lambda: not server.server_state.connections)


def test_whoever_comes_when_all_connections_are_taken_is_sent_away_at_once() -> None:
    from civae_core.serve.limits import Limits

    limits = Limits(silence_seconds=PATIENCE_S, connections=3)
    with serving(large, limits) as (port, server), ExitStack() as stack:
        starts = []
        for _ in range(3):  # the last one counts too, and leaves no room for its own answer
            client, start = begun(port)
            stack.enter_context(client)
            starts.append(start)
        assert starts == [b"HTTP/1.1 200"] * 2 + [b"HTTP/1.1 503"]
        stack.close()
        wait_until(lambda: not server.server_state.connections)
        client, start = begun(port)
        stack.enter_context(client)
        assert start == b"HTTP/1.1 200", "there is room again"


def test_nobody_can_claim_the_address_of_another(make_studio: Callable[..., "Studio"]) -> None:
    from civae_core.serve.app import make_app
    from civae_core.serve.limits import Limits

    limits = Limits(burst=2, requests_per_second=0.001, look_cost=1)
    with serving(make_app(make_studio(limits)), limits) as (port, _):
        starts = []
        for number in range(3):
            client, start = begun(port, b"X-Forwarded-For: 192.0.2.%d\r\n" % number)
            client.close()
            starts.append(start)
    assert starts == [b"HTTP/1.1 200"] * 2 + [b"HTTP/1.1 429"]


def test_the_system_holds_little_of_an_answer() -> None:
    from civae_core.serve.limits import Limits
    from civae_core.serve.server import SEND_BUFFER

    with serving(large, Limits(silence_seconds=PATIENCE_S)) as (port, server), ExitStack() as stack:
        client, _ = begun(port)
        stack.enter_context(client)
        (connection,) = server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
        held = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert 0 < held <= 2 * SEND_BUFFER, "Linux doubles what it is told"


def test_whoever_fetches_a_byte_is_waited_for() -> None:
    from uvicorn.server import ServerState

    from civae_core.serve.limits import Limits
    from civae_core.serve.server import server_of

    config = server_of(large, Limits(silence_seconds=10)).config
    config.load()
    loop, transport = Mock(), Mock()
    transport.get_extra_info.return_value = None
    protocol: Any = config.http_protocol_class(config, ServerState(), {}, loop)
    protocol.connection_made(transport)
    transport.get_write_buffer_size.return_value = 1000
    protocol.pause_writing()
    for waiting, ended in ((999, False), (500, False), (500, True)):
        transport.get_write_buffer_size.return_value = waiting
        seconds, look, *arguments = loop.call_later.call_args.args
        assert seconds == 10
        look(*arguments)
        assert transport.abort.called == ended


def test_photographs_are_forgotten_though_nobody_comes(
    make_studio: Callable[..., "Studio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    from civae_core.serve import app
    from civae_core.serve.limits import Limits
    from civae_core.serve.sittings import Sitting, Sittings

    made: list[Any] = []

    class Watched(Sittings):
        added = 0

        def __init__(self, limits: Limits) -> None:
            super().__init__(limits)
            made.append(self)

        def add(self, sitting: Sitting) -> str:
            self.added += 1
            return super().add(sitting)

    monkeypatch.setattr(app, "Sittings", Watched)
    limits = Limits(photo_seconds=0.1)
    with serving(app.make_app(make_studio(limits)), limits) as (port, _):
        for count in (1, 2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/examples/0", b"", PATIENCE_S):
                assert made[0].added == count
            wait_until(lambda: not len(made[0]))


def asked(arguments: list[str]) -> Any:
    return CliRunner().invoke(command_line, ["serve", *arguments])


def test_the_command_says_where_and_what(
    trained: Path, faces: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from civae_core.serve import server

    served: dict[str, Any] = {}

    def run(app: Any, listening: socket.socket, limits: Any) -> None:
        served.update(app=app, port=listening.getsockname()[1], limits=limits)
        listening.close()

    monkeypatch.setattr(server, "run", run)
    result = asked(
        [str(trained), str(trained), "--examples", f"{faces.path}#test[0:2]", "--port", "0", "--json"]
    )
    assert result.exit_code == 0, result.output
    url = f"http://127.0.0.1:{served['port']}/"
    models = [trained.name, f"{trained.name} (2)"]
    assert json.loads(result.stdout) == {"url": url, "models": models, "examples": 2}
    assert "anybody" not in result.stderr and "unencrypted" not in result.stderr
    assert not served["app"].any_address and "::1" in served["app"].hosts

    arguments = [
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--allow-host",
        "Lab.example",
        "--max-upload",
        "2",
        "--engine",
        "torch",
    ]
    result = asked([str(trained), *arguments])
    assert result.stdout == f"http://127.0.0.1:{served['port']}/\n"
    assert "travel unencrypted" in result.stderr
    assert served["app"].any_address and "lab.example" in served["app"].hosts
    assert served["limits"].upload_bytes == 2 * 2**20


def test_what_cannot_be_served_is_said(
    trained: Path, faces: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolve_numbers(host: str, *of: Any, **more: Any) -> Any:
        """Resolve without asking a name server for the unknown name."""
        if host == "no.such.host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *of, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_numbers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        result = asked([str(trained), "--port", number])
    assert result.exit_code == 2 and f"--port {number}" in result.stderr and "--port 0" in result.stderr
    for arguments, said in (
        ([str(tmp_path / "none")], "no such run"),
        ([str(trained), "--examples", str(tmp_path)], "without images"),
        ([str(trained), "--examples", f"{faces.path}#test[0:900]"], "outside the split"),
        ([str(trained), "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
        ([str(trained), "--host", "192.0.2.1"], "127.0.0.1 for this machine alone"),
    ):
        result = asked([*arguments, "--port", "0"])
        assert result.exit_code in (2, 3) and said in result.stderr, result.stderr


@pytest.mark.parametrize("host", ["192.168..1", "x" * 64, ".", "\udcff"])
def test_a_host_that_no_machine_can_be_called_is_unknown(host: str) -> None:
    from civae_core.errors import UsageError
    from civae_core.serve.server import listen

    with pytest.raises(UsageError, match="not known") as error:
        listen(host, 0)
    assert error.value.exit_code == 2 and "127.0.0.1 for this machine alone" in str(error.value.hint)


@pytest.mark.parametrize(
    ("host", "local", "everywhere", "place"),
    [
        ("127.0.0.1", True, False, "127.0.0.1"),
        ("127.1", True, False, "127.1"),
        ("localhost", True, False, "localhost"),
        ("0.0.0.0", False, True, "127.0.0.1"),
        ("0", False, True, "127.0.0.1"),
        ("::1", True, False, "[::1]"),
        ("::", False, True, "[::1]"),
    ],
)
def test_however_an_address_is_written_its_url_leads_there(
    host: str, local: bool, everywhere: bool, place: str
) -> None:
    from civae_core.errors import UsageError
    from civae_core.serve.server import is_everywhere, is_local, listen, url_of

    try:
        listening = listen(host, 0)
    except UsageError:
        if ":" not in host:
            raise
        pytest.skip("this machine has no IPv6")
    with listening:
        port = listening.getsockname()[1]
        assert (is_local(listening), is_everywhere(listening)) == (local, everywhere)
        assert url_of(host, listening) == f"http://{place}:{port}/"
        with socket.create_connection((place.strip("[]"), port), timeout=PATIENCE_S):
            listening.accept()[0].close()


def test_a_page_on_an_export_needs_no_torch() -> None:
    code = "import civae_core.serve.opening, civae_core.serve.app, civae_core.serve.server, sys; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_models_get_short_names_that_differ() -> None:
    from civae_core.serve.opening import short_names

    runs = [Path("/a/ours"), Path("/a/cvae"), Path("/b/ours"), Path("/a/ours")]
    assert short_names(runs) == ["a/ours", "cvae", "b/ours", "a/ours (2)"]


def test_names_that_cannot_be_sent_are_escaped() -> None:
    from civae_core.serve.opening import short_names

    names = short_names([Path("/a/caf\udce9"), Path("/a/caf\udce9"), Path("/a/café")])
    assert names == ["caf\\udce9", "caf\\udce9 (2)", "café"]


def test_checkpoints_have_the_names_of_their_runs(tmp_path: Path) -> None:
    from civae_core.serve.opening import short_names

    run = tmp_path / "young"
    (run / "checkpoints" / "step-000000064").mkdir(parents=True)
    best = run / "checkpoints" / "best"
    best.symlink_to("step-000000064")
    assert short_names([run, best, best / "model.safetensors"]) == ["young", "young/best", "young/best (2)"]
    assert short_names([run / "checkpoints" / "step-000000064"]) == ["young/step-000000064"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_process_ends_cleanly(trained: Path) -> None:
    command = [sys.executable, "-m", "civae_cli", "serve", str(trained), "--port", "0"]

    def heed_interrupts() -> None:
        """Restore Ctrl-C, which a process started in a shell's background ignores, and so do its children."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as page:
            assert b"<title>civae" in page.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        said = process.stderr.read()
    assert said.splitlines()[-1] == "stopped; no photographs are kept" and "Traceback" not in said
