"""`serve`: vectors and searches over HTTP, by one engine.

In: an index or a model, where to listen, limits. Out: a server that runs until a signal ends it.
Not here: flags (cli/serve.py), HTTP (serving/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.errors import UsageError
from embedcli.index.disk import Disk
from embedcli.index.generations import Index, current_of
from embedcli.serving import server
from embedcli.serving.app import application
from embedcli.serving.batcher import Batcher
from embedcli.serving.limits import Limits
from embedcli.serving.served import served
from embedcli.serving.service import Access, Service
from embedcli.verbs.embed import Asked, Job, check, settle
from embedcli.verbs.search import query_device

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.report import Say
    from embedcli.run.tools import Tools


@dataclass(frozen=True)
class Place:
    """Where the server listens, and the key that it asks for."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None

    def __post_init__(self) -> None:
        if self.api_key is not None and not self.api_key.strip():
            raise UsageError("`--api-key` is empty: is a shell variable not set?", "give a key, or leave it out")
        if self.api_key is None and not server.is_local(self.host):
            raise UsageError(
                f"with `--host {self.host}` everybody who reaches this machine could read the index",
                "set a key: `export EMBEDCLI_API_KEY=$(openssl rand -hex 16)`, or leave `--host` out",
            )


def serve(asked: Asked, place: Place, limits: Limits, *, tools: Tools, say: Say) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was asked and return. Raises EmbedcliError."""
    with server.listen(place.host, place.port) as sock:
        job = settle(_on_this_machine(asked), tools)
        ends: list[BaseException] = []

        def make_service(stop: Callable[[], None]) -> Service:
            def end(error: BaseException) -> None:
                ends.append(error)
                stop()

            return Service(served(job.model, job.settings), _batcher(job, limits, tools, say, end), limits, access)

        access = Access(place.api_key, any_host=place.api_key is not None)
        say(f"{job.settings.model} at http://{_shown(sock.getsockname())}; Ctrl-C ends it")
        server.run(lambda stop: application(lambda: make_service(stop), access, limits.requests), sock)
    if ends:
        raise ends[0]


def _on_this_machine(asked: Asked) -> Asked:
    """An index that was built on a card can be served by a machine without one."""
    if asked.index is None or asked.device is not None:
        return asked
    settings = current_of(Index(Path(asked.index), disk=Disk())).settings
    return replace(asked, device=query_device(settings))


def _batcher(job: Job, limits: Limits, tools: Tools, say: Say, end: Callable[[BaseException], None]) -> Batcher:
    def check_and_say(engine: Engine) -> None:
        check(engine, job)
        say(f"ready: {job.settings.dim} dimensions on {engine.device}")

    return Batcher(
        lambda: tools.open_engine(job.model, job.settings, job.device),
        check_and_say,
        queue_tokens=limits.queue_tokens,
        say=say,
        on_end=end,
    )


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
