"""The application: which path does what, and what becomes of errors.

In: a function that makes the Service once the event loop runs. Out: an ASGI application.
Not here: the socket and signals (server.py), what the endpoints do (embeddings.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcli.errors import EmbedcliError, InputError, UsageError
from embedcli.serving import embeddings
from embedcli.serving.answers import CLIENT_LEFT, JSON, ClientLeft, Problem, json_answer, problem_answer
from embedcli.serving.clients import service_of, unless_client_leaves
from embedcli.serving.guard import Guard
from embedcli.serving.index_routes import index_routes
from embedcli.serving.limits import read_json
from embedcli.serving.metrics import Figures
from embedcli.serving.service import HEAVY_LETTERS, Access, Service


def application(
    make_service: Callable[[], Service], access: Access, most_requests: int, *, with_index: bool, allow_files: bool
) -> Starlette:
    routes = [
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{name:path}", _model),
        Route("/health", _health),
        Route("/metrics", _metrics),
        *(index_routes(allow_files) if with_index else ()),
    ]
    paths = {route.path for route in routes}
    figures = Figures(lambda: app.state.service.batcher.load)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = make_service()
        app.state.figures, app.state.paths = figures, paths
        async with app.state.service.running():
            yield

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            Problem: _problem,
            ClientLeft: _client_left,
            EmbedcliError: _embedcli_error,
            HTTPException: _http_error,
            Exception: _bug,
        },
    )
    app.add_middleware(Guard, access=access, figures=figures, paths=paths, most_requests=most_requests)
    return app


# ---- the endpoints


async def _embeddings(request: Request) -> Response:
    service = service_of(request)
    served = service.served
    asked = embeddings.parse(await read_json(request, service.limits), served, service.limits)
    heavy = sum(map(len, asked.texts)) > HEAVY_LETTERS
    rows = await service.heavy(heavy, served.rows, asked.texts, asked.kind, asked.prompt)
    answers = await unless_client_leaves(request, service.batcher.embed(rows))
    content = await service.heavy(heavy, embeddings.answer, asked, rows, answers, served)
    return Response(content, media_type=JSON)


async def _models(request: Request) -> Response:
    return json_answer({"object": "list", "data": [_described(service_of(request))]})


async def _model(request: Request) -> Response:
    service = service_of(request)
    embeddings.check_model({"model": request.path_params["name"]}, service.served)
    return json_answer(_described(service))


def _described(service: Service) -> dict[str, Any]:
    served = service.served
    sizes = {"dimensions": served.dim, "max_model_len": served.max_tokens}
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "embedcli", **sizes}


async def _health(request: Request) -> Response:
    service = service_of(request)
    load = service.batcher.load
    ready = load.state == "ready"
    content = {"status": load.state, "model": service.served.name, "waiting_tokens": load.tokens}
    if service.searching is not None:
        content["generation"] = service.searching.index.linked_number()
    return json_answer(content, 200 if ready else 503, {} if ready else {"Retry-After": "10"})


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.figures.text(), media_type="text/plain; version=0.0.4")


# ---- errors


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_answer(error)


async def _client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _embedcli_error(_: Request, error: Exception) -> Response:
    """What the user can mend is a 400; a model or index that cannot be read now, a 503."""
    assert isinstance(error, EmbedcliError)
    message = f"{error}; {error.hint}" if error.hint else str(error)
    if isinstance(error, UsageError | InputError):
        return problem_answer(Problem(400, message))
    return problem_answer(Problem(503, message, code=type(error).__name__, retry_after_s=10))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {404: "there is no", 405: "the method is not for"}
    start = sentences.get(error.status_code, str(error.detail))
    message = f"{start} `{request.method} {request.url.path}`"
    return problem_answer(Problem(error.status_code, message, headers=error.headers))


async def _bug(_: Request, __: Exception) -> Response:
    """The server's log has the traceback."""
    return problem_answer(Problem(500, "this is a bug in embedcli; the server's log has more"))
