"""The index while it is served: new generations are opened before they are searched, and a new model takes over.

In: the searching, the service, what settles the model of the current generation. Out: the service with that model.
Not here: which generation a search sees (search/searcher.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedcli.errors import EmbedcliError
from embedcli.serving.batcher import Batcher
from embedcli.serving.served import Served

if TYPE_CHECKING:
    from embedcli.serving.searching import Searching
    from embedcli.serving.service import Service

LOOK_S = 2.0
DRAIN_LOOK_S = 0.05

Settle = Callable[[], tuple[Served, Callable[[], Batcher]]]
"""The model of the current generation, and what makes its batcher in the event loop. Raises EmbedcliError."""


async def watch(service: Service, searching: Searching, settle: Settle, say: Callable[[str], None]) -> None:
    """Look at the index now and then, until cancelled."""
    said = ""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if not service.served.is_of(await searching.generation()):
                await _renew(service, searching, settle, say)
            said = ""
        except EmbedcliError as error:
            if str(error) != said:
                said = str(error)
                say(f"the index cannot be searched: {error}")


async def _renew(service: Service, searching: Searching, settle: Settle, say: Callable[[str], None]) -> None:
    """The old model answers what it was asked; there is room for the new one when it is closed."""
    served, make_batcher = await searching.do(settle)
    say(f"the index has another model now: {served.name}, {served.dim} dimensions")
    service.batcher.retire()
    while service.batcher.load.requests:
        await asyncio.sleep(DRAIN_LOOK_S)
    await searching.do(service.batcher.close)
    service.served, service.batcher = served, make_batcher()
