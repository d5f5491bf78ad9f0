"""`serve`: vectors and searches over HTTP, by one engine.

In: an index or a model, where to listen, limits. Out: a server that runs until a signal ends it.
Not here: flags (cli/serve.py), HTTP (serving/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedcli.engines import nvml
from embedcli.errors import UsageError
from embedcli.index.generations import current_of
from embedcli.index.mirror.place import open_index
from embedcli.serving import server
from embedcli.serving.app import application
from embedcli.serving.batcher import Batcher
from embedcli.serving.limits import Limits
from embedcli.serving.renewal import watch
from embedcli.serving.searching import Searching
from embedcli.serving.served import Served, served
from embedcli.serving.service import Access, Service
from embedcli.verbs.embed import Asked, Job, check, settle
from embedcli.verbs.search import query_vectors

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.report import Say
    from embedcli.run.tools import Tools


@dataclass(frozen=True)
class Place:
    """Where the server listens, the key that it asks for, and whether it gives away the files of its passages."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    files: bool = False

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
        offer = _Offer(asked, limits, tools, say)
        job = offer.settle()
        access = Access(place.api_key, any_host=place.api_key is not None)
        say(f"{job.settings.model} at http://{_shown(sock.getsockname())}; Ctrl-C ends it")
        server.run(
            lambda stop: application(
                lambda: offer.service(job, stop),
                access,
                limits.requests,
                with_index=asked.index is not None,
                allow_files=place.files,
            ),
            sock,
        )
    if offer.ends:
        raise offer.ends[0]


class _Offer:
    """What is served, made anew where an index gets another model."""

    def __init__(self, asked: Asked, limits: Limits, tools: Tools, say: Say) -> None:
        self._asked = asked
        self._limits = limits
        self._tools = tools
        self._say = say
        self.ends: list[BaseException] = []
        """What ended the server, if it was no signal."""

    def settle(self) -> Job:
        """An index that was built on a card can be served by a machine without one."""
        asked = self._asked
        if asked.index is not None and asked.device is None:
            settings = current_of(open_index(asked.index)).settings
            device = "cpu" if settings.device_kind == "cuda" and not nvml.has_nvidia_card() else settings.device_kind
            asked = replace(asked, device=device)
        return settle(asked, self._tools)

    def service(self, job: Job, stop: Callable[[], None]) -> Service:
        """Called in the event loop."""

        def settled_anew() -> tuple[Served, Callable[[], Batcher]]:
            newer = self.settle()
            return served(newer.model, newer.settings), lambda: self._batcher(newer, stop)

        found = Service(served(job.model, job.settings), self._batcher(job, stop), self._limits)
        if self._asked.index is not None:
            index = open_index(self._asked.index, warn=self._say)
            own = query_vectors(index, lambda _: self._tools, self._say) if found.served.fixed_prompt else None
            searching = found.searching = Searching(index, found.embed_query, own)
            found.beside = lambda service: watch(service, searching, settled_anew, self._say)
        return found

    def _batcher(self, job: Job, stop: Callable[[], None]) -> Batcher:
        def check_and_say(engine: Engine) -> None:
            check(engine, job)
            self._say(f"ready: {job.settings.dim} dimensions on {engine.device}")

        def end(error: BaseException) -> None:
            self.ends.append(error)
            stop()

        return Batcher(
            lambda: self._tools.open_engine(job.model, job.settings, job.device),
            check_and_say,
            queue_tokens=self._limits.queue_tokens,
            say=self._say,
            on_end=end,
        )


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
