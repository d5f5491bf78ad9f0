"""What `serve` serves: one engine, and the searches of an index, made anew where the index gets another model.

In: an index or a model, limits. Out: a Service.
Not here: where it is served (serve.py), HTTP (serving/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from embedcli.engines import nvml
from embedcli.index.generations import current_of
from embedcli.index.mirror.place import open_index
from embedcli.serving.batcher import Batcher
from embedcli.serving.renewal import watch
from embedcli.serving.searching import Searching
from embedcli.serving.served import Served, served
from embedcli.serving.service import Service
from embedcli.verbs.embed_job import Asked, Job, check, settle
from embedcli.verbs.search import query_vectors

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.report import Say
    from embedcli.run.tools import Tools
    from embedcli.serving.limits import Limits


class Offer:
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
