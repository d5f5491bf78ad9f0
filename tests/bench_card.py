"""Tokens/s of our SGLang engine on rows of one length, and whether rows in flight together come out as they do alone.

    PYTHONPATH=. python tests/bench_card.py MODEL [LENGTH ...]        # MODEL is a folder; 128 and 512 tokens by default

In: a model folder, a card. Out: a line a length, then the worst cosine of 4,096 rows of mixed lengths, all in flight
at once, with the same rows sent a list at a time.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from concurrent.futures import Future

import numpy as np

from embedcli.engine import Engine
from embedcli.engine_sglang import open_engine
from embedcli.models import resolve
from embedcli.sglang_settings import SGLangSettings

SECONDS = 5.0
WARM_UP_S = 1.0
ANSWER_S = 120.0
MIXED_ROWS = 4_096
FIRST_ID, LAST_ID = 1_000, 100_000
Rows = list[np.ndarray]


def random_rows(source: np.random.Generator, lengths: np.ndarray) -> Rows:
    return [source.integers(FIRST_ID, LAST_ID, length, dtype=np.uint32) for length in lengths.tolist()]


def lists_of(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def rate(engine: Engine, length: int, seconds: float, source: np.random.Generator) -> float:
    """Tokens/s with as many lists in flight as the feeder keeps there."""
    lists = lists_of(random_rows(source, np.full(8 * engine.batch_rows, length)), engine.batch_rows)
    flight: deque[Future[np.ndarray]] = deque()
    began, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        while len(flight) < engine.depth:
            flight.append(engine.submit(lists[(done + len(flight)) % len(lists)]))
        flight.popleft().result(ANSWER_S)
        done += 1
    for future in flight:
        future.result(ANSWER_S)
    return done * engine.batch_rows * length / elapsed


def worst_cosine(engine: Engine, source: np.random.Generator) -> float:
    rows = random_rows(source, source.integers(2, 512, MIXED_ROWS))
    alone = np.concatenate([engine.submit(one).result(ANSWER_S) for one in lists_of(rows, engine.batch_rows)])
    order = source.permutation(MIXED_ROWS)
    futures = [engine.submit(one) for one in lists_of([rows[place] for place in order], engine.batch_rows)]
    together = np.concatenate([future.result(ANSWER_S) for future in futures])
    lengths = np.linalg.norm(together, axis=1) * np.linalg.norm(alone[order], axis=1)
    return float(((together * alone[order]).sum(axis=1) / lengths).min())


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    source = np.random.default_rng(0)
    model = resolve(sys.argv[1], report=print)
    engine = open_engine(model, dim=128, settings=SGLangSettings(max_tokens=512), say=print)
    try:
        for length in [int(text) for text in sys.argv[2:]] or [128, 512]:
            rate(engine, length, WARM_UP_S, source)
            print(f"{length:>5} tokens a row: {rate(engine, length, SECONDS, source):>9,.0f} tokens/s", flush=True)
        print(f"in flight together against a list at a time: cosine {worst_cosine(engine, source):.6f} at worst")
    finally:
        engine.close()


if __name__ == "__main__":
    main()
