"""`serve`: vectors and searches over HTTP, by one engine.

In: an index or a model, where to listen, limits. Out: a server that runs until a signal ends it.
Not here: flags (cli/serve.py), what is served (offer.py), HTTP (serving/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcli.errors import UsageError
from embedcli.serving import server
from embedcli.serving.app import application
from embedcli.serving.service import Access
from embedcli.verbs.offer import Offer

if TYPE_CHECKING:
    from embedcli.report import Say
    from embedcli.run.tools import Tools
    from embedcli.serving.limits import Limits
    from embedcli.verbs.embed_job import Asked


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
        offer = Offer(asked, limits, tools, say)
        job = offer.settle()
        key = place.api_key and place.api_key.strip()  # a file of secrets often ends with a newline; no header does
        access = Access(key, any_host=key is not None)
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


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
