"""What the endpoints share: the model and its batcher, the limits, the threads for heavy work.

In: what was opened. Out: one record for the application. Not here: HTTP (app.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from embedcli.serving.batcher import Batcher
from embedcli.serving.limits import Limits
from embedcli.serving.served import Served

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Who may use the server. `any_host`: it may be asked under any name, as it has an address of its own."""

    api_key: str | None = None
    any_host: bool = False


@dataclass
class Service:
    served: Served
    batcher: Batcher
    limits: Limits
    access: Access
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "embedcli-heavy"))

    async def heavy(self, is_heavy: bool, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """In a thread where it takes long enough to hold up other requests, else here."""
        if not is_heavy:
            return function(*args, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **named))

    def close(self) -> None:
        self.batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
