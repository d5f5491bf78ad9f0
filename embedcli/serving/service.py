"""What the endpoints share: the model and its batcher, the limits, the threads for heavy work.

In: what was opened. Out: one record for the application. Not here: HTTP (app.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from embedcli.columns import Floats
from embedcli.engines.contract import Refusal
from embedcli.serving.answers import Problem
from embedcli.serving.batcher import Batcher
from embedcli.serving.limits import Limits
from embedcli.serving.served import Served

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation
    from embedcli.serving.searching import Searching

HEAVY_LETTERS = 8_000
"""Of a request: tokenising more takes over a millisecond, in which nobody else is served."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Who may use the server. `any_host`: it may be asked under any name, as it has an address of its own."""

    api_key: str | None = None
    any_host: bool = False


@dataclass
class Service:
    """`served` and `batcher` change together, in the loop, when a new generation has another model."""

    served: Served
    batcher: Batcher
    limits: Limits
    searching: Searching | None = None
    beside: Callable[[Service], Coroutine[Any, Any, None]] | None = None
    """What goes on beside the requests, as long as the server runs."""
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "embedcli-heavy"))

    async def heavy(self, is_heavy: bool, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """In a thread where it takes long enough to hold up other requests, else here."""
        if not is_heavy:
            return function(*args, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **named))

    async def embed_query(self, generation: Generation, text: str) -> Floats:
        """The vector [dim] of a query. Raises Problem 503 where the generation has another model than the engine."""
        served, batcher = self.served, self.batcher
        if not served.is_of(generation):
            message = f"generation {generation.number} has another model, which is being loaded"
            raise Problem(503, message, code="model_changes", retry_after_s=10)
        row = await self.heavy(len(text) > HEAVY_LETTERS, served.query_row, text)
        (answer,) = await batcher.embed([row])
        if isinstance(answer, Refusal):
            raise Problem(422, "the engine gives the query no vector; ask in other words", code=answer.reason)
        return answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end everything is closed."""
        beside = None if self.beside is None else asyncio.create_task(self.beside(self))
        try:
            yield
        finally:
            if beside is not None:
                beside.cancel()
            self.batcher.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self.searching is not None:
                self.searching.close()
