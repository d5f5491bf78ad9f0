"""SGLang's scheduler process, without five delays in which the card idles while rows are short.

In: the arguments of SGLang's own `run_scheduler_process`. Out: that process, for as long as the Engine lives.
The delays were found by timing each part of the scheduler's loop: Python's garbage collector finds nothing to free; the
next batch is prepared only after the card has finished the one before; after each batch all waiting requests are
counted, for a report that nobody reads; for each row its places in the pool are copied on the card, though nobody
writes there meanwhile; of each number of a vector a Python float is made, here and again in the host.
Not here: the Engine (host.py), its arguments (settings.py).
"""

from __future__ import annotations

import gc
import importlib
import os
from typing import Any

from embedcli.engines.sglang.settings import MODELS

GC_THRESHOLD = (50_000, 20, 100)
"""Python's default is (700, 10, 10). With ours a batch of 255 rows takes 73 instead of 86 ms, and the host handles 2.8
times as many rows a second."""


def run_scheduler(server_args: Any, *rest: Any, **named: Any) -> None:
    """What SGLang starts in the place of its own `run_scheduler_process`, in a process of its own."""
    from sglang.srt.managers.scheduler import Scheduler, run_scheduler_process
    from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor
    from sglang.srt.mem_cache.allocator.base import BaseTokenToKVPoolAllocator

    if os.environ.get("SGLANG_EXTERNAL_MODEL_PACKAGE") == MODELS:
        importlib.import_module(f"{MODELS}.qwen3")  # raises what is wrong with the file: SGLang would skip it silently
    gc.set_threshold(*GC_THRESHOLD)
    if server_args.prefill_only_disable_kv_cache:
        prepare_ahead(Scheduler)
        free_without_copies(BaseTokenToKVPoolAllocator)
    publish_no_loads(Scheduler)
    answer_with_bytes(SchedulerBatchResultProcessor)
    run_scheduler_process(server_args, *rest, **named)


def prepare_ahead(scheduler: Any) -> None:
    """Let the scheduler prepare the next batch while one runs: remove the barrier at which it waits for the card.

    The barrier keeps a batch from overwriting what an older batch still reads: keys and values, and the table of their
    places. Here no keys or values are kept, and a row of the table is reused only after the batch that read it was
    answered, for which the scheduler waits by an event.
    """
    scheduler._apply_war_barrier = lambda self: None


def free_without_copies(allocator: Any) -> None:
    """Let the allocator free the places of a batch's rows without copying them out of the table first.

    SGLang copies them row by row, because it frees them together when the whole batch is answered. Until then nobody
    writes to the table: the next batch's places are written by the same stream, afterwards.
    """
    allocator._copy_for_free_group = staticmethod(lambda places: places)


def publish_no_loads(scheduler: Any) -> None:
    """Keep the scheduler from counting waiting requests: only balancers of several engines would read the counts."""
    scheduler.publish_load_snapshot = lambda self, force=False: None


def answer_with_bytes(processor: Any) -> None:
    """Let the scheduler answer with the bytes of each row's float32 numbers, in the place of a list of them.

    The lists of 256 rows of 1,024 dimensions take 9 ms here and 16 in the host, and a request that waits for them all
    111 ms on an H200; bytes take less than 1 ms in each, and the request 84 ms.
    """
    processor._convert_embeddings = lambda self, *, result: [
        row.tobytes() for row in result.embeddings.float().cpu().numpy()
    ]
