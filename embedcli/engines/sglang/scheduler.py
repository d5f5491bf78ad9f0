"""SGLang's scheduler process, relieved of what holds up the card while rows are short.

In: what SGLang's own `run_scheduler_process` takes. Out: that very process, for as long as the Engine lives.
Found by a clock on each part of its loop: Python looks for garbage where there is none, the next batch is made ready
only when the card has done the one before, each batch is followed by a census of all that waits, which nobody reads,
and each row by a copy on the card of places that nobody writes meanwhile.
Not here: the Engine (host.py), its arguments (settings.py).
"""

from __future__ import annotations

import gc
import importlib
import os
from typing import Any

from embedcli.engines.sglang.settings import MODELS

GC_THRESHOLD = (50_000, 20, 100)
"""Python's own is (700, 10, 10). A batch of 255 rows went from 86 to 73 ms; the front-end does 2.8 times the rows."""


def run_scheduler(server_args: Any, *rest: Any, **named: Any) -> None:
    """In the place of SGLang's own, in a process of its own."""
    from sglang.srt.managers.scheduler import Scheduler, run_scheduler_process
    from sglang.srt.mem_cache.allocator.base import BaseTokenToKVPoolAllocator

    if os.environ.get("SGLANG_EXTERNAL_MODEL_PACKAGE") == MODELS:
        importlib.import_module(f"{MODELS}.qwen3")  # SGLang leaves a file out that it cannot import, without a word
    gc.set_threshold(*GC_THRESHOLD)
    if server_args.prefill_only_disable_kv_cache:
        prepare_ahead(Scheduler)
        free_without_copies(BaseTokenToKVPoolAllocator)
    publish_no_loads(Scheduler)
    run_scheduler_process(server_args, *rest, **named)


def prepare_ahead(scheduler: Any) -> None:
    """No stream waits for the batch that runs before the next one is made ready.

    That barrier keeps a batch from writing where an older one still reads: keys and values, and the table of their
    places. Here no keys or values are kept, and a row of the table is given anew only after the batch that read it
    was answered, for which the scheduler waits by an event.
    """
    scheduler._apply_war_barrier = lambda self: None


def free_without_copies(allocator: Any) -> None:
    """The places of a batch's rows are given back from the table itself.

    SGLang copies them, row by row, since they are put together only when the whole batch is answered. Until then
    nobody writes to the table: the next batch's places are written by the same stream, afterwards.
    """
    allocator._copy_for_free_group = staticmethod(lambda places: places)


def publish_no_loads(scheduler: Any) -> None:
    """What waits is counted for balancers of several engines; ours has none."""
    scheduler.publish_load_snapshot = lambda self, force=False: None
