"""The paths of a server that has an index: `/v1/search`, the page at `/`, the files of its passages.

In: requests. Out: hits as JSON or as a page, files. Not here: vectors and errors (app.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from embedcli.errors import EmbedcliError, UsageError
from embedcli.records import printable
from embedcli.serving import embeddings, files, page, searching
from embedcli.serving.answers import Problem, json_answer
from embedcli.serving.clients import service_of, unless_client_leaves
from embedcli.serving.limits import read_json
from embedcli.serving.page import About, Asked
from embedcli.serving.searching import Searching, Wanted

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation

FOLDERS_SHOWN = 200
FILES = "/files/{chunk_id}/{name}"


def index_routes(allow_files: bool) -> list[Route]:
    routes = [Route("/v1/search", _search, methods=["POST"]), Route("/", _page)]
    return [*routes, Route(FILES, _file)] if allow_files else routes


def _searching(request: Request) -> Searching:
    found = service_of(request).searching
    assert found is not None
    return found


async def _search(request: Request) -> Response:
    service = service_of(request)
    body = await read_json(request, service.limits)
    if "model" in body:
        embeddings.check_model(body, service.served)
    wanted = searching.parse(body)
    found = await unless_client_leaves(request, _searching(request).search(wanted))
    return json_answer(searching.answer(found))


async def _page(request: Request) -> Response:
    """The page has an answer for whatever is wrong, too."""
    asked, found, problem, status = Asked.of(request.query_params), None, "", 200
    here = _searching(request)
    about = About(_name(here.index))
    linked: page.Linked = _nowhere
    try:
        generation = await here.generation()
        about = await here.do(_about, here.index, generation)
        if asked.query:
            wanted = Wanted(asked.query, asked.count, folder=asked.folder)
            found = await unless_client_leaves(request, here.search(wanted))
            if FILES in request.app.state.paths:
                linked = await here.do(_links, found.hits, generation)
    except Problem as error:
        problem, status = error.message, error.status
    except UsageError as error:
        problem, status = str(error), 400
    except EmbedcliError as error:
        problem, status = str(error), 503
    return HTMLResponse(page.page(asked, about, found, linked, problem), status, page.HEADERS)


def _nowhere(_: Mapping[str, Any]) -> None:
    return None


def _links(hits: Any, generation: Generation) -> page.Linked:
    """The addresses of those documents that are on this machine."""
    there = {hit.row["uri"] for hit in hits if files.file_of(hit.row, generation.roots) is not None}
    return lambda row: page.file_address(row) if row["uri"] in there else None


def _name(index: Index) -> str:
    return index.shown.rpartition("/")[2]


def _about(index: Index, generation: Generation) -> About:
    """The first folders of the documents' paths, and the number of passages."""
    paths = index.documents(generation.number, ["path"]).column("path")
    inside = paths.filter(pc.match_substring(paths, "/"))
    folders = sorted({path.rpartition("/")[0] for path in inside.to_pylist()})
    return About(_name(index), tuple(folders[:FOLDERS_SHOWN]), generation.counts["chunks"])


async def _file(request: Request) -> Response:
    here = _searching(request)
    generation = await here.generation()
    try:
        row = await here.row(request.path_params["chunk_id"])
    except UsageError as error:
        raise Problem(404, str(error)) from None
    path = await here.do(files.file_of, row, generation.roots)
    if path is None:
        raise Problem(404, f"the document `{row['path']}` is not on this machine")
    return _sent(path)


def _sent(path: Path) -> Response:
    kind = files.media_type(path)
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    if kind != files.PDF:  # the browser's own viewer needs what this forbids
        headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    name = path.name if path.name.isprintable() else printable(os.fsencode(path.name))
    shown = "attachment" if kind == files.DOWNLOAD else "inline"
    return FileResponse(path, headers=headers, media_type=kind, filename=name, content_disposition_type=shown)
