"""The index as tools of a language model, by the Model Context Protocol over stdin and stdout.

In: a searcher, what tells the status of the index. Out: the tools `search`, `passage` and `status`, until stdin ends.
Not here: HTTP (app.py); a client starts this as a program of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from embedcli import __version__
from embedcli.columns import row_json
from embedcli.errors import EmbedcliError
from embedcli.search.searcher import Hit, Searcher
from embedcli.search.shown import excerpt

LETTERS = 700
MOST_HITS = 50
SHOWN = ("chunk_id", "path", "title", "section", "page_start", "page_end")
INSTRUCTIONS = (
    "Passages of the documents in an index. Search in the user's own words, in any language; words in"
    ' "quotes" must be in the passage. Search gives the best part of each passage, `passage` the whole of it.'
    " Name the path, and the page where there is one, of what you quote."
)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Json = dict[str, Any]
Query = Annotated[str, Field(description='What to look for; words in "quotes" must be in the passage.')]
Count = Annotated[int, Field(description="How many passages.", ge=1, le=MOST_HITS)]
Folder = Annotated[str | None, Field(description="Only documents in this folder, such as `contracts/2024`.")]
ChunkId = Annotated[str, Field(description="The `chunk_id` of a passage that `search` found.")]


def run(searcher: Searcher, status: Callable[[], Json]) -> None:
    """Answer until stdin ends."""
    server = MCPServer("embedcli", instructions=INSTRUCTIONS, version=__version__)
    tools = _Tools(searcher, status)
    for tool in (tools.search, tools.passage, tools.status):
        server.tool(annotations=READS)(tool)
    server.run("stdio")


class _Tools:
    """A method is a tool: its docstring and its types are what the model is told."""

    def __init__(self, searcher: Searcher, status: Callable[[], Json]) -> None:
        self._searcher = searcher
        self._status = status

    async def search(self, query: Query, k: Count = 10, folder: Folder = None) -> Json:
        """Find passages by meaning and by words, the best first, each with its document, page and score."""

        def found() -> Json:
            hits = self._searcher.search(query, k=k, folder=folder)
            shown = [_hit_json(hit, hits.terms) for hit in hits.hits]
            return {"generation": hits.generation, "mode": hits.mode, "hits": shown}

        return await _in_thread(found)

    async def passage(self, chunk_id: ChunkId) -> Json:
        """The whole text of one passage, and everything that is known of its document."""
        return await _in_thread(lambda: row_json(self._searcher.passage(chunk_id)))

    async def status(self) -> Json:
        """What the index holds: its documents, when it was brought up to date, which folders it is of."""
        return await _in_thread(self._status)


def _hit_json(hit: Hit, terms: frozenset[str]) -> Json:
    part = excerpt(hit.row["text"] or "", terms, LETTERS)
    is_whole = not (part.is_cut_before or part.is_cut_after)
    return {"score": round(hit.score, 3), **{name: hit.row[name] for name in SHOWN}, "text": part.text,
            "is_whole": is_whole}  # fmt: skip


async def _in_thread(function: Callable[[], Json]) -> Json:
    """What is wrong is told to the model, so that it can ask in another way."""
    try:
        return await asyncio.to_thread(function)
    except EmbedcliError as error:
        raise ToolError(f"{error}; {error.hint}" if error.hint else str(error)) from error
