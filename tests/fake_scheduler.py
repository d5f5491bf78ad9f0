"""SGLang's own front-end over a scheduler of ours, so that its failures can be had on any machine.

In: the arguments that would start the Engine on a card. Out: the same Engine (tokenizer manager, sockets, signal
handlers, watchdog, child processes, all SGLang's), in which only the process that would own the card is ours. It
answers a list at once with vectors that depend on the ids alone, at unit length as far as bfloat16 goes, unless
the list holds one of the ids below. `open_sglang_*` misbehave while they start.
Import this before sglang: what an embedding front-end imports and never calls is replaced where it is missing.
Not here: lengths, memory, batching; a real scheduler refuses less than one would think, see engine.ids_problem.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

KILL_ID, HANG_ID, RAISE_ID, NO_MEMORY_ID, NAN_ID = range(201, 206)
ASSERT = "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx( handle, opa, opb, m, n, k)"
"""What an H100 said of an id outside the table."""

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."
POOL_TOKENS = 100_000
FACTORY = "tests.fake_scheduler:open_sglang"


# ---- packages that are not there


class Stub(type):
    """Every name below it is another; called, it gives back a function that it was meant to decorate."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(name, (), {})

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if len(args) == 1 and not options and callable(args[0]):
            return args[0]
        return StubInstance()


class StubInstance:
    """What calling a stub gives: a decorator that changes nothing, or a thing without meaning."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return args[0] if args else self


class StubModule(types.ModuleType):
    __path__: list[str] = []
    __version__ = "99.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stub = Stub(name, (), {})
        setattr(self, name, stub)
        return stub


class StubImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages named, and all that is below them."""

    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> StubModule:
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """A stub has nothing to run."""


def _missing_packages() -> Iterator[str]:
    for name in ("torchvision", "triton", "flashinfer", "torchao", "cuda"):
        if importlib.util.find_spec(name) is None:
            yield name
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        yield "sgl_kernel"  # installed or not, it cannot be loaded


sys.meta_path.insert(0, StubImporter(frozenset(_missing_packages())))


# ---- the scheduler's process


def vector(ids: Sequence[int], dim: int, width: int) -> np.ndarray:
    """A fixed state of `width`, cut to `dim`, normalised and rounded to bfloat16 as the card does."""
    seed = hashlib.blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=8).digest()
    state = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(width, dtype=np.float32)[:dim]
    unit = (state / np.linalg.norm(state)).astype(np.float32)
    rounded = ((unit.view(np.uint32).astype(np.uint64) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.full(dim, np.nan, dtype=np.float32) if NAN_ID in ids else rounded


def misbehave(ids: set[int]) -> None:
    if KILL_ID in ids:
        os.kill(os.getpid(), signal.SIGKILL)
    if HANG_ID in ids:
        time.sleep(3_600)
    if RAISE_ID in ids:
        raise RuntimeError(ASSERT)
    if NO_MEMORY_ID in ids:
        import torch

        raise torch.OutOfMemoryError(OUT_OF_MEMORY)


def run_scheduler(*arguments: Any) -> None:
    """In place of sglang.srt.managers.scheduler.run_scheduler_process; arguments are its own."""
    settings, ports, ready = arguments[0], arguments[1], arguments[6]
    import psutil
    from sglang.srt.arg_groups.overrides import model_config_of
    from sglang.srt.managers.load_snapshot import create_load_snapshot_writer
    from sglang.srt.runtime_context import SpawnRanks, publish
    from sglang.srt.utils import kill_itself_when_parent_died

    kill_itself_when_parent_died()
    publish(settings, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=0, gpu_id=0))
    _kept = create_load_snapshot_writer(ports, 1, 0)  # what a killed scheduler leaves in shared memory
    width = model_config_of(settings).hidden_size
    times: dict[str, Any] = {"load_weight": 0.0, "kv_cache_allocation": 0.0, "scheduler_e2e": 0.0, "cuda_graph": {}}
    facts = {"status": "ready", "max_total_num_tokens": POOL_TOKENS, "max_req_input_len": POOL_TOKENS}
    ready.send({**facts, "startup_time": times})
    try:
        _answer_for_ever(ports, width)
    except Exception:  # noqa: BLE001 - as the real one
        traceback.print_exc()  # what a real one does: says why, tells its parent, exits with 0
        psutil.Process().parent().send_signal(signal.SIGQUIT)


def _answer_for_ever(ports: Any, width: int) -> None:
    import zmq
    from sglang.srt.managers import io_struct
    from sglang.srt.utils.network import get_zmq_socket

    context = zmq.Context(2)
    questions = get_zmq_socket(context, zmq.PULL, ports.scheduler_input_ipc_name, False)
    answers = get_zmq_socket(context, zmq.PUSH, ports.tokenizer_ipc_name, False)
    while True:
        message = io_struct.sock_recv(questions)
        if isinstance(message, io_struct.TokenizedEmbeddingReqInput):
            requests = [message]
        elif isinstance(message, io_struct.BatchTokenizedEmbeddingReqInput):
            requests = list(message)
        else:
            continue
        misbehave({token for request in requests for token in request.input_ids})
        io_struct.sock_send(answers, _output(requests, width))


def _output(requests: Sequence[Any], width: int) -> Any:
    from sglang.srt.managers.io_struct import BatchEmbeddingOutput, wrap_as_pickle
    from sglang.srt.observability.req_time_stats import SchedulerReqTimeStats

    count = len(requests)
    return BatchEmbeddingOutput(
        rids=[request.rid for request in requests],
        embeddings=[vector(list(one.input_ids), one.dimensions or width, width).tobytes() for one in requests],
        prompt_tokens=[len(request.input_ids) for request in requests],
        finished_reasons=[{"type": "length", "length": 0}] * count,
        time_stats=wrap_as_pickle([SchedulerReqTimeStats() for _ in requests]),
        http_worker_ipcs=[None] * count,
        cached_tokens=[0] * count,
        cached_tokens_details=[None] * count,
        retraction_counts=[0] * count,
        placeholder_tokens_idx=None,
        placeholder_tokens_val=None,
    )


# ---- schedulers that do not start


def raise_at_start(*_: Any) -> None:
    import psutil

    print("Traceback (most recent call last):\nRuntimeError: no weights here", file=sys.stderr, flush=True)
    psutil.Process().parent().send_signal(signal.SIGQUIT)


def run_out_of_memory_at_start(*_: Any) -> None:
    import psutil

    print(f"Traceback (most recent call last):\ntorch.OutOfMemoryError: {OUT_OF_MEMORY}", file=sys.stderr, flush=True)
    psutil.Process().parent().send_signal(signal.SIGQUIT)


def die_at_start(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def load_for_ever(*_: Any) -> None:
    time.sleep(3_600)


# ---- the engines


def open_sglang(arguments: dict[str, Any]) -> Any:
    return _open(arguments, run_scheduler)


def open_sglang_that_raises(arguments: dict[str, Any]) -> Any:
    return _open(arguments, raise_at_start)


def open_sglang_without_memory(arguments: dict[str, Any]) -> Any:
    return _open(arguments, run_out_of_memory_at_start)


def open_sglang_that_dies(arguments: dict[str, Any]) -> Any:
    return _open(arguments, die_at_start)


def open_sglang_that_loads(arguments: dict[str, Any]) -> Any:
    return _open(arguments, load_for_ever)


def _open(arguments: dict[str, Any], scheduler: Callable[..., None]) -> Any:
    """The arguments stand, but for what needs a card."""
    from sglang.srt.entrypoints.engine import Engine

    from embedcli.engines.sglang.host import SGLang, without_detokenizer

    class EngineWithoutCard(without_detokenizer(Engine)):  # type: ignore[misc]  # untyped
        run_scheduler_process_func = staticmethod(scheduler)

    without_card = {
        "device": "cpu",
        "attention_backend": "torch_native",
        "prefill_only_disable_kv_cache": False,
        "disable_overlap_schedule": True,
        "load_format": "dummy",
    }
    return SGLang(EngineWithoutCard(**(arguments | without_card)))
