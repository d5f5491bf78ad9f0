"""The hints of `serve`, carried out: after what they say the server answers, and ends with 0 at SIGTERM."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.serving import server as listening
from tests.carried_out.table import Command, assert_given, carries_out, type_in
from tests.hint_states import indexed
from tests.serving.client import HERE, serving
from tests.unprivileged import as_nobody
from tests.workshop import Workshop

KEY = "set a key: `export EMBEDCLI_API_KEY=$(openssl rand -hex 16)`, or leave `--host` out"
PORT = "name another one with `--port`; 0 takes a free one"
HIGH = "name one above 1023 with `--port`"


@pytest.fixture
def served(shop: Workshop) -> Workshop:
    indexed(shop)
    return shop


def answers(shop: Workshop, *arguments: str, key: str = "", **environment: str) -> None:
    """`serve` with these arguments answers, and ends with 0."""
    with serving(shop.index.parent, str(shop.index), *arguments, **environment) as server:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        server.address = address
        assert server.post("/v1/embeddings", {"input": "a text"}, headers=headers).status_code == 200
        server.signal()
        assert server.exit_code() == 0


@carries_out(KEY)
def test_a_host_with_a_key_is_served(served: Workshop, command: Command) -> None:
    assert_given(KEY, type_in("embedcli serve {index} --host 0.0.0.0", served, command), served)
    made = subprocess.run(
        ["bash", "-c", f"{KEY.split('`')[1]}; echo $EMBEDCLI_API_KEY"], capture_output=True, text=True
    )
    key = made.stdout.strip()
    assert len(key) == 32
    answers(served, "--host", "0.0.0.0", key=key, EMBEDCLI_API_KEY=key)


@carries_out("give a key, or leave it out", "leave `--host` out")
def test_what_is_left_out_has_a_default(served: Workshop, command: Command) -> None:
    for flags, hint in (
        ("--api-key ''", "give a key, or leave it out"),
        ("--host no.such.host.invalid --api-key k", "leave `--host` out"),
        ("--host 192.0.2.1 --api-key k", "leave `--host` out"),
    ):
        assert_given(hint, type_in(f"embedcli serve {{index}} {flags}", served, command), served)
    answers(served)
    answers(served, "--api-key", "k", key="k")


@carries_out(PORT)
def test_another_port_is_free(served: Workshop, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = f"embedcli serve {{index}} --port {other.getsockname()[1]}"
        assert_given(PORT, type_in(line, served, command), served)
        answers(served, "--port", "0")


@carries_out(HIGH)
def test_a_port_that_only_root_may_open_is_told_from_others(served: Workshop, command: Command, tmp_path: Path) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        with pytest.MonkeyPatch.context() as patched:

            def denied(*_: object) -> None:
                raise PermissionError(13, "Permission denied")

            patched.setattr(socket.socket, "bind", denied)
            given = type_in("embedcli serve {index} --port 80", served, command)
        assert_given(HIGH, given, served)
    else:

        def is_given() -> None:
            with pytest.raises(Exception) as raised:  # noqa: B017
                listening.listen("127.0.0.1", 80)
            assert getattr(raised.value, "hint", "") == HIGH

        as_nobody(tmp_path, is_given)
    answers(served, "--port", "1024")


@carries_out("name it: `embedcli serve INDEX --mcp`")
def test_an_index_that_is_named_is_served_to_a_language_model(served: Workshop, command: Command) -> None:
    hint = "name it: `embedcli serve INDEX --mcp`"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(served.docs)
        assert_given(hint, type_in("embedcli serve --model minilm --mcp", served, command), served)
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, str(HERE / "serve_driver.py"), "sound", "serve", str(served.index), "--mcp"],
        input=json.dumps(hello) + "\n", env=os.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0 and json.loads(ran.stdout)["result"]["serverInfo"]["name"] == "embedcli"
