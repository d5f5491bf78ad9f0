"""What is changed of SGLang's scheduler: the rows of a batch give back together, and none waits where nothing is kept.

In: doubles with the few names that are changed (test_sglang_contract.py: they are there). Out: what ran, in order.
Not here: speed and equality on a card.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from embedcli.engine_scheduler import GC_THRESHOLD, free_in_groups, run_scheduler


class Allocator:
    def __init__(self) -> None:
        self.log: list[str] = []

    def free_group_begin(self) -> None:
        self.log.append("begin")

    def free_group_end(self) -> None:
        self.log.append("end")


def processor_of(failing: bool = False) -> Any:
    class Processor:
        token_to_kv_pool_allocator = Allocator()

        def process_batch_result_prefill(self, batch: list[str], result: object) -> None:
            self.token_to_kv_pool_allocator.log += batch
            if failing:
                raise RuntimeError("the batch was lost")

    return Processor


def test_the_rows_of_a_batch_give_their_places_back_together() -> None:
    processor = processor_of()
    free_in_groups(processor)
    processor().process_batch_result_prefill(["a", "b"], result=None)
    assert processor.token_to_kv_pool_allocator.log == ["begin", "a", "b", "end"]


def test_a_group_ends_though_its_batch_fails() -> None:
    processor = processor_of(failing=True)
    free_in_groups(processor)
    with pytest.raises(RuntimeError, match="the batch was lost"):
        processor().process_batch_result_prefill(["a"], None)
    assert processor.token_to_kv_pool_allocator.log == ["begin", "a", "end"]


@pytest.fixture
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("threshold")
@pytest.mark.parametrize("nothing_kept", [True, False])
def test_a_batch_waits_for_the_one_before_only_where_keys_and_values_are_kept(
    monkeypatch: pytest.MonkeyPatch, nothing_kept: bool
) -> None:
    log: list[str] = []

    class Scheduler:
        def _apply_war_barrier(self) -> None:
            log.append("barrier")

    def run_scheduler_process(server_args: object, *rest: object, **named: object) -> None:
        assert (rest, named) == (("port",), {"rank": 0}) and gc.get_threshold() == GC_THRESHOLD
        Scheduler()._apply_war_barrier()
        log.append("ran")

    modules: dict[str, dict[str, Any]] = {
        "scheduler": {"Scheduler": Scheduler, "run_scheduler_process": run_scheduler_process},
        "scheduler_components.batch_result_processor": {"SchedulerBatchResultProcessor": processor_of()},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"sglang.srt.managers.{name}", module)
    for package in ("sglang", "sglang.srt", "sglang.srt.managers", "sglang.srt.managers.scheduler_components"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    run_scheduler(SimpleNamespace(prefill_only_disable_kv_cache=nothing_kept), "port", rank=0)
    assert log == (["ran"] if nothing_kept else ["barrier", "ran"])
