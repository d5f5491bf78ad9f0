"""Our changes to SGLang's scheduler: where no keys and values are kept, a batch does not wait for the last, and nothing
is copied; no census is held; and vectors are sent as bytes.

In: doubles of the names that are used (test_contract.py: they are there). Out: what ran, in order.
Not here: speed and equality on a card.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embedcli.engines.sglang.scheduler import GC_THRESHOLD, run_scheduler


@pytest.fixture
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("threshold")
@pytest.mark.parametrize("nothing_kept", [True, False])
def test_a_batch_waits_for_the_batch_before_it_only_where_keys_and_values_are_kept(
    monkeypatch: pytest.MonkeyPatch, nothing_kept: bool
) -> None:
    log: list[str] = []

    class Scheduler:
        def _apply_war_barrier(self) -> None:
            log.append("barrier")

        def publish_load_snapshot(self, force: bool = False) -> object:
            log.append("census")
            return object()

    class Allocator:
        @staticmethod
        def _copy_for_free_group(places: list[int]) -> list[int]:
            log.append("copy")
            return [*places]

    class Processor:
        def _convert_embeddings(self, *, result: Any) -> list[list[float]]:
            return list(result.embeddings.tolist())

    def run_scheduler_process(server_args: object, *rest: object, **named: object) -> None:
        assert (rest, named) == (("port",), {"rank": 0}) and gc.get_threshold() == GC_THRESHOLD
        Scheduler()._apply_war_barrier()
        places = [1, 2]
        assert Allocator()._copy_for_free_group(places) == places
        assert Scheduler().publish_load_snapshot(force=True) is None
        vectors = torch.tensor([[0.5, -0.25], [1.0, 3.0]], dtype=torch.bfloat16)
        first, second = Processor()._convert_embeddings(result=SimpleNamespace(embeddings=vectors))
        assert np.frombuffer(first + second, np.float32).tolist() == [0.5, -0.25, 1.0, 3.0]
        log.append("ran")

    module = types.ModuleType("scheduler")
    vars(module).update(Scheduler=Scheduler, run_scheduler_process=run_scheduler_process)
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler", module)
    base = types.ModuleType("base")
    vars(base)["BaseTokenToKVPoolAllocator"] = Allocator
    monkeypatch.setitem(sys.modules, "sglang.srt.mem_cache.allocator.base", base)
    results = types.ModuleType("batch_result_processor")
    vars(results)["SchedulerBatchResultProcessor"] = Processor
    components = "sglang.srt.managers.scheduler_components"
    monkeypatch.setitem(sys.modules, f"{components}.batch_result_processor", results)
    packages = ("sglang", "sglang.srt", "sglang.srt.managers", "sglang.srt.mem_cache", "sglang.srt.mem_cache.allocator")
    for package in (*packages, components):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    run_scheduler(SimpleNamespace(prefill_only_disable_kv_cache=nothing_kept), "port", rank=0)
    assert log == (["ran"] if nothing_kept else ["barrier", "copy", "ran"])
