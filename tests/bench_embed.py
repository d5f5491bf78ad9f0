"""Prints how busy `embedcli embed` keeps an engine: its tokens/s beside those of the engine alone.

    PYTHONPATH=. python tests/bench_embed.py [torch TOKENS | double TOKENS RATE DIM FORMAT]

In: `torch` is MiniLM on this machine; `double` an engine of a fixed speed that takes no core, as a card is: by default
those of a card with the 4B and with the 0.6B model (the README's table). Out: a line each, from the first batch to the
last vector; reading, tokenising and writing are in it. The goal is 0.95 of the engine alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from embedcli.config import IndexSettings
from embedcli.engines.contract import Engine
from embedcli.models import resolve
from embedcli.models.folder import Model
from embedcli.models.tokenizer import load_tokenizer
from embedcli.pipes.tables import Result, Shape
from embedcli.pipes.texts import Form
from embedcli.run.tools import Tools
from embedcli.verbs.bench.measure import Watched
from embedcli.verbs.embed import embed
from embedcli.verbs.embed_job import Asked
from tests.bench_engine import mixed_texts
from tests.bench_ingest import engine_alone

MODEL = resolve.resolve("minilm", report=print)


class FixedSpeed:
    """Answers after the time that its tokens take at `rate` tokens/s; vectors depend on the ids alone."""

    max_tokens, vocabulary, device, precision = 4_096, None, "cuda:0", "bfloat16"
    batch_tokens, batch_rows, padded, depth = 16_384, 1_024, False, 4

    def __init__(self, *, rate: float, dim: int) -> None:
        self.dim = dim
        self._rate = rate
        pool = np.random.default_rng(0).standard_normal((4_096, dim), np.float32)
        self._pool = pool / np.linalg.norm(pool, axis=1, keepdims=True)
        self._free_at_s = 0.0
        self._worker = ThreadPoolExecutor(1)

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        return self._worker.submit(self._embed, batch, time.perf_counter())

    def _embed(self, batch: Sequence[np.ndarray], since_s: float) -> np.ndarray:
        self._free_at_s = max(self._free_at_s, since_s) + sum(ids.size for ids in batch) / self._rate
        time.sleep(max(0.0, self._free_at_s - time.perf_counter()))
        digests = np.array([zlib.crc32(ids.tobytes()) for ids in batch], np.int64)
        vectors = self._pool[digests % 4_096]
        vectors[:, 0] += (digests >> 12) * np.float32(1e-9)
        return vectors

    def close(self) -> None:
        self._worker.shutdown(wait=False)


def whole(
    texts: list[str], open_engine: Callable[[Model, IndexSettings], Engine], *, dim: int, form: str, device: str
) -> float:
    """tokens/s of `embed` from JSON lines in a file to `form` in nowhere."""
    watched: list[Watched] = []

    def opened(model: Model, settings: IndexSettings, _: str) -> Watched:
        watched.append(Watched(open_engine(model, settings)))
        return watched[0]

    tools = Tools(resolve=lambda asked, memory: MODEL, device_kind=lambda asked: device, open_engine=opened)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file, open(os.devnull, "wb") as nowhere:
        file.write("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)))
        file.flush()
        before, own_s = resource.getrusage(resource.RUSAGE_SELF), time.thread_time()
        shape = Shape(form, ids=True, text=False, parts=False)
        asked = Asked(model="minilm", dim=dim, long="truncate")
        result: Result = embed([file.name], Form(field="text"), asked, shape, out=nowhere, tools=tools, say=print)
        after, own_s = resource.getrusage(resource.RUSAGE_SELF), time.thread_time() - own_s
    watched[0].engine.close()
    elapsed_s = watched[0].last_at - watched[0].first_at
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"  {result.texts:,} texts, {result.tokens:,} tokens in {elapsed_s:.1f} s;"
        f" {cpu_s:.1f} CPU s, {own_s:.1f} of them in the one thread that reads, sends and writes"
    )
    return result.tokens / elapsed_s


def double(tokens: int, rate: float, dim: int, form: str) -> None:
    width, engine = min(dim, MODEL.width), FixedSpeed(rate=rate, dim=min(dim, MODEL.width))
    share = whole(mixed_texts(tokens), lambda model, settings: engine, dim=width, form=form, device="cuda") / rate
    print(f"double of {rate:,.0f} tokens/s, {width} dimensions, {form}: {share:.3f} of the engine alone")


def torch(tokens: int) -> None:
    from embedcli.engines import torch_engine

    texts = list(dict.fromkeys(mixed_texts(tokens)))
    tokenizer = load_tokenizer(MODEL.folder)
    cut = [text for text in texts if tokenizer.row_of(text).size <= MODEL.max_tokens]
    rates = []
    for _ in range(2):  # alternately: the machine may be busy with something else
        alone, _padding = engine_alone(cut)
        ours = whole(
            cut, lambda model, settings: torch_engine.open_engine(model, dim=settings.dim, device="cpu"),
            dim=MODEL.width, form="jsonl", device="cpu",
        )  # fmt: skip
        rates.append((ours, alone))
        print(f"torch, MiniLM: embed {ours:,.0f}, engine alone {alone:,.0f} tokens/s: {ours / alone:.3f}")


def main(arguments: Sequence[str]) -> None:
    kind, *numbers = arguments or ("all",)
    if kind in ("torch", "all"):
        torch(int(numbers[0]) if numbers else 60_000)
    if kind == "double":
        double(int(numbers[0]), float(numbers[1]), int(numbers[2]), numbers[3])
    if kind == "all":
        double(2_000_000, 86_000, 128, "jsonl")
        double(8_000_000, 544_000, 128, "jsonl")
        double(8_000_000, 544_000, 128, "arrow")


if __name__ == "__main__":
    main(sys.argv[1:])
