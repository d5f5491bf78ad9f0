"""The tools of `serve --mcp`, used through the official client, over the pipes of a real process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from tests.cli.test_main import QUIET
from tests.serving.client import HERE
from tests.workshop import Workshop, words

RED = "The light blinks red: the battery is empty."


@pytest.fixture
def lamp(shop: Workshop) -> Workshop:
    shop.write("manual/red.md", f"# Lamp\n\n{RED}")
    shop.write("other/green.md", "# Lamp\n\nThe light is green: everything works.")
    shop.ingest()
    return shop


def talk(shop: Workshop, work: Callable[[Client], Awaitable[None]]) -> None:
    arguments = [str(HERE / "serve_driver.py"), "sound", "serve", str(shop.index), "--mcp"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=QUIET)

    async def session() -> None:
        async with Client(stdio_client(server)) as client:
            await work(client)

    asyncio.run(asyncio.wait_for(session(), 120))


async def call(client: Client, name: str, **arguments: Any) -> Any:
    answer = await client.call_tool(name, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


def test_a_model_searches_and_reads_on(lamp: Workshop) -> None:
    async def work(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == {"search", "passage", "status"}
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.values())
        assert tools["search"].input_schema["required"] == ["query"]
        found = await call(client, "search", query='light "blinks red"')
        (hit,) = found["hits"]
        assert (hit["path"], found["generation"], hit["is_whole"]) == ("manual/red.md", 1, True)
        assert RED in hit["text"]
        whole = await call(client, "passage", chunk_id=hit["chunk_id"])
        assert whole["text"] == hit["text"] and whole["uri"] == str(lamp.docs / "manual/red.md")
        found = await call(client, "search", query="light", folder="other")
        assert [hit["path"] for hit in found["hits"]] == ["other/green.md"]
        status = await call(client, "status")
        assert (status["generation"], status["sources"]["indexed"]) == (1, 2)

    talk(lamp, work)


def test_a_new_generation_is_found_by_the_same_session(lamp: Workshop) -> None:
    async def work(client: Client) -> None:
        await call(client, "search", query="anything")
        lamp.write("new.txt", words(9, 1) + "A zebra crossing.")
        await asyncio.to_thread(lamp.ingest)
        found = await call(client, "search", query='"zebra crossing"')
        assert found["generation"] == 2 and [hit["path"] for hit in found["hits"]] == ["new.txt"]

    talk(lamp, work)


def test_what_is_wrong_is_told_to_the_model(lamp: Workshop) -> None:
    async def work(client: Client) -> None:
        for name, arguments, message in (
            ("search", {"query": " "}, "the query is empty"),
            ("search", {"query": "a", "k": 0}, "k"),
            ("passage", {"chunk_id": "nothing"}, "generation 1 has no chunk `nothing`"),
        ):
            answer = await client.call_tool(name, arguments)
            assert answer.is_error and message in answer.content[0].text  # type: ignore[union-attr]

    talk(lamp, work)


def test_the_end_of_stdin_is_the_end_and_stdout_has_messages_only(lamp: Workshop) -> None:
    who = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}
    command = [sys.executable, str(HERE / "serve_driver.py"), "sound", "serve", str(lamp.index), "--mcp"]
    ran = subprocess.run(
        command, input=json.dumps(hello) + "\n", env=QUIET, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    assert json.loads(line)["result"]["serverInfo"]["name"] == "embedcli"


def test_it_needs_an_index(tmp_path: Path) -> None:
    for arguments, code, hint in (
        (("--mcp",), 2, "embedcli serve INDEX --mcp"),
        (("no", "--mcp"), 10, "embedcli ingest"),
    ):
        command = [sys.executable, str(HERE / "serve_driver.py"), "sound", "serve", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=180)
        assert ran.returncode == code and hint in ran.stderr and not ran.stdout
