"""The server starts with clear errors, keeps its limits, outlives its engine, and ends when it has answered."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.cli.test_main import QUIET
from tests.serving.client import HERE, KILLER, Server, error, serving, vectors

MINILM = ("--model", "minilm", "--dim", "16")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "serve_driver.py"), "sound", "serve", *arguments]
    return subprocess.run(command, cwd=folder, env=QUIET, capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("--host", "0.0.0.0"), 2, "with `--host 0.0.0.0` everybody who reaches this machine could read the index",
         "EMBEDCLI_API_KEY"),
        (("--api-key", ""), 2, "`--api-key` is empty", "give a key"),
        (("--max-queue", "0"), 2, "`--max-queue` must be at least 1", "leave the flag out"),
        (("--host", "no.such.host.invalid", "--api-key", "k"), 2, "`--host no.such.host.invalid` is not an address",
         "leave `--host` out"),
        (("nothing",), 10, "is not an index, or has published nothing yet", "embedcli ingest SOURCE"),
        (("nothing", "--model", "minilm"), 2, "`--model` cannot be combined with an index", "leave `--model` out"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said_at_once(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    ran = run(tmp_path, *arguments, "--port", "0")
    assert ran.returncode == code and message in ran.stderr and hint in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_port_in_use_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run(tmp_path, *MINILM, "--port", str(port))
    assert ran.returncode == 2 and ran.stderr.startswith(f"error: port {port} of `127.0.0.1` is in use\n\nhint: ")


def test_a_lacking_extra_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from embedcli.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "serve"], cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=180
    )
    assert ran.returncode == 2 and "`uvicorn` is not installed" in ran.stderr
    assert "pip install 'embedcli[serve]'" in ran.stderr


def test_an_engine_that_never_opens_is_the_end(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "serve_driver.py"), "never-opens", "serve", *MINILM, "--port", "0"]
    ran = subprocess.run(command, cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 13 and ran.stderr.endswith("error: the double does not open\n\nhint: try another double\n")


def test_while_the_model_loads_the_answer_is_503_and_health_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, fault="opens-late", wait="http://") as server:
        health = server.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        answer = server.embed("one")
        assert error(answer, 503)["message"] == "the model is being loaded" and answer.headers["retry-after"] == "10"
        server.go()
        server.wait_for("ready")
        assert server.get("/health").status_code == 200 and vectors(server.embed("one")).shape == (1, 16)


def held(threads: ThreadPoolExecutor, server: Server) -> Future[httpx.Response]:
    """A request that the engine has when this returns: what comes later is in no batch with it."""
    future = threads.submit(server.embed, f"it {KILLER} this")
    until = time.monotonic() + 60
    while not (server.folder / "held").exists():
        assert time.monotonic() < until, "the engine has not got it"
        time.sleep(0.01)
    return future


def waiting(server: Server) -> int:
    found: int = server.get("/health").json()["waiting_tokens"]
    return found


def test_sigterm_answers_what_was_asked_and_then_ends_with_0(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, fault="holds") as server, ThreadPoolExecutor() as threads:
        answer = held(threads, server)
        server.signal()
        with pytest.raises(httpx.TransportError):
            while True:
                server.get("/health")
        assert not answer.done() and server.process.poll() is None
        server.go()
        assert vectors(answer.result(60)).shape == (1, 16) and server.exit_code() == 0


def test_what_is_not_answered_in_time_after_sigterm_is_a_503_and_no_bug(tmp_path: Path) -> None:
    """A request that never arrives whole, and one that takes too long."""
    with serving(tmp_path, *MINILM, fault="holds-too-long") as server, ThreadPoolExecutor() as threads:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            answer = held(threads, server)
            server.signal()
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert "this server has ended" in error(answer.result(60), 503)["message"]
        assert server.exit_code() == 0 and "Traceback" not in server.log.read_text()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, fault="holds") as server, ThreadPoolExecutor() as threads:
        answer = held(threads, server)
        server.signal(signal.SIGINT)
        with pytest.raises(httpx.TransportError):  # refused, or taken and cut off as the door is closed
            while True:
                server.get("/health")
        server.signal(signal.SIGINT)
        assert server.exit_code() == 130
        with pytest.raises(httpx.TransportError):
            answer.result(60)


def test_a_full_queue_is_429_and_what_fits_is_answered(tmp_path: Path) -> None:
    with (
        serving(tmp_path, *MINILM, "--max-queue", "30", fault="holds") as server,
        ThreadPoolExecutor() as threads,
    ):
        first = held(threads, server)
        answer = server.embed(["a b c d e f g h i j k l m n o"] * 2)
        assert error(answer, 429)["code"] == "queue_full" and int(answer.headers["retry-after"]) >= 1
        assert vectors(server.embed("small")).shape == (1, 16)
        server.go()
        assert vectors(first.result(60)).shape == (1, 16)
        assert vectors(server.embed(["a b c d e f g h i j k l m n o"] * 3)).shape == (3, 16), "alone, any request fits"


def test_a_client_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, "--max-queue", "30", fault="holds") as server:
        body = json.dumps({"input": [f"it {KILLER} this"] * 30}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(head.encode() + body)
            while not waiting(server):
                time.sleep(0.01)
            assert server.embed("a b c").status_code == 429
        while waiting(server):
            time.sleep(0.01)
        assert vectors(server.embed("a b c")).shape == (1, 16)
        until = time.monotonic() + 60
        while 'status="499"' not in server.get("/metrics").text:  # counted when the request has ended
            assert time.monotonic() < until
            time.sleep(0.01)


def test_when_the_engine_dies_what_was_asked_is_answered_by_the_next_one(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, fault="dies-once") as server, ThreadPoolExecutor() as threads:
        answer = threads.submit(server.embed, f"it {KILLER} this")
        server.wait_for("the engine is restarted")
        while server.get("/health").json()["status"] != "restarting":
            time.sleep(0.01)
        refused = server.embed("one")
        assert error(refused, 503)["code"] == "engine_not_ready" and "retry-after" in refused.headers
        server.go()
        assert vectors(answer.result(60)).shape == (1, 16)
        assert vectors(server.embed("one")).shape == (1, 16)
        assert "embedcli_engine_restarts_total 1.0" in server.get("/metrics").text


def test_an_engine_that_does_not_come_back_is_503_and_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path, *MINILM, fault="gives-up") as server:
        answer = server.embed(f"it {KILLER} this")
        assert "the double does not open" in error(answer, 503)["message"] and "retry-after" in answer.headers
        assert server.get("/health").status_code == 503
        server.wait_for("the engine does not start again: the double does not open; another try in 5 s")
        server.go()
        until = time.monotonic() + 60
        while server.get("/health").status_code != 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert vectors(server.embed(f"it {KILLER} this")).shape == (1, 16)


def test_too_many_requests_at_once_are_429(tmp_path: Path) -> None:
    """Of the guard, which counts them before it reads them."""
    import asyncio

    from embedcli.serving.guard import Guard
    from embedcli.serving.metrics import Figures
    from embedcli.serving.service import Access
    from embedcli.serving.waiting import Load

    held = threading.Event()
    inside: list[object] = []

    async def app(scope: object, receive: object, send: object) -> None:
        inside.append(scope)
        while not held.is_set():
            await asyncio.sleep(0.01)

    async def check() -> None:
        figures = Figures(lambda: Load("ready", 0, 0, 0, 0, 0))
        guard = Guard(app, access=Access(), figures=figures, paths=(), most_requests=2)
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = [asyncio.ensure_future(client.get("/a")) for _ in range(2)]
            while len(inside) < 2:
                await asyncio.sleep(0.01)
            answer = await client.get("/a")
            held.set()
            await asyncio.gather(*first, return_exceptions=True)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"

    asyncio.run(check())
