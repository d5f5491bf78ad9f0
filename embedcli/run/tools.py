"""The seams of a run: how it resolves the model, opens the engine, hears signals and writes to the disk.

In: the name of an engine, flags for a card and for the CPU, where lines go. Out: Tools; tests make their own.
Not here: the choice of model, device and engine (engines/choose.py).
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcli.config import NO_CARD_FLAGS, NO_CPU_FLAGS, CardFlags, CpuFlags
from embedcli.errors import Stopped
from embedcli.report import Say

if TYPE_CHECKING:
    from embedcli.config import IndexSettings, Options
    from embedcli.engines.contract import Engine
    from embedcli.models.folder import Model
    from embedcli.vault.disk import Disk


@dataclass(frozen=True)
class Tools:
    """The seams of a run: what it is made with, and what tests put in its place."""

    resolve: Callable[[Options, IndexSettings | None], Model]
    device_kind: Callable[[Options], str]
    open_engine: Callable[[Model, IndexSettings, str], Engine]
    stop_signal: Callable[[], int | None] = lambda: None
    disk: Disk | None = None
    """On which disk the index is; None: on that of its folder (index.mirror.place.disk_of)."""
    seconds_left: Callable[[], float] = lambda: math.inf
    """How long the run may still take."""
    make_pool: Callable[..., Any] | None = None
    """Where the reading is done; None: in processes (reading.pool.Pool)."""
    make_splitter: Callable[..., Any] | None = None
    """Where containers are split; None: in a process (reading.splitter.Splitter)."""
    workforce: Any = None
    """The workers of a cluster that read, embed and store (cluster.transport.Workforce); None: this process does."""

    def stop_if_asked(self) -> None:
        """Raise Stopped where a signal has come."""
        if (number := self.stop_signal()) is not None:
            raise Stopped(number)


def make_tools(
    engine: str,
    say: Say,
    *,
    card: CardFlags = NO_CARD_FLAGS,
    cpu: CpuFlags = NO_CPU_FLAGS,
    warn: Say | None = None,
    show_log: Say | None = None,
    seconds_left: Callable[[], float] = lambda: math.inf,
    stop_signal: Callable[[], int | None] | None = None,
) -> Tools:
    """The real seams: the model of this machine, its engine, and what tells of a signal: by default those of this
    process, which are handled from now on."""
    from embedcli.engines import choose

    return Tools(
        resolve=lambda options, memory: choose.resolve_model(
            options, memory, engine=engine, card=card, cpu=cpu, say=say
        ),
        device_kind=choose.device_kind,
        open_engine=lambda model, settings, device: choose.open_engine(
            model, settings, device, engine=engine, card=card, cpu=cpu, say=say, warn=warn or say, show_log=show_log
        ),
        stop_signal=listen() if stop_signal is None else stop_signal,
        seconds_left=seconds_left,
    )


def listen() -> Callable[[], int | None]:
    """Handle SIGINT and SIGTERM from now on; returns what tells the number of the signal that came, if one did.

    The first signal raises Stopped at once until the returned function has been called for the first time; from then
    on the caller asks for it between two steps. A second signal ends the process immediately.
    """
    received: list[int] = []
    polled = False

    def handle(number: int, _frame: Any) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        if not polled:
            raise Stopped(number)

    def poll() -> int | None:
        nonlocal polled
        polled = True
        return received[0] if received else None

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return poll
