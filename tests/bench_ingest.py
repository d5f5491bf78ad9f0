"""Prints what a whole ingest costs beside the engine alone and sentence-transformers, with MiniLM on this machine.

    PYTHONPATH=. python tests/bench_ingest.py [MEGABYTES of text, 1 by default]

In: generated documents of mixed lengths. Out: a table of tokens/s, the ratios, padding and peak memory. The whole run
counts from its first to its last vector; loading the model is left out of all three.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from embedcli.config import Options
from embedcli.engines import torch_engine
from embedcli.engines.contract import pack
from embedcli.ingest import ingest
from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from embedcli.report import Report, Summary
from embedcli.run.tools import Tools
from tests.workshop import words

MODEL = resolve.resolve("minilm", report=print)


def make_corpus(folder: Path, megabytes: float) -> None:
    """Documents of 100 to 4,000 made-up words, in paragraphs of 20 to 120."""
    generator = np.random.default_rng(0)
    written = number = 0
    while written < megabytes * 1e6:
        paragraphs = generator.integers(20, 120, max(1, int(generator.lognormal(2.5, 1.0))))
        text = "\n".join(words(int(count), number * 1000 + i) for i, count in enumerate(paragraphs))
        (folder / f"{number:05d}.txt").write_text(text)
        written, number = written + len(text), number + 1


def whole(docs: Path, index: Path) -> tuple[Summary, list[str]]:
    tools = Tools(
        resolve=lambda asked, memory: MODEL,
        device_kind=lambda asked: "cpu",
        open_engine=lambda model, settings, device: torch_engine.open_engine(model, dim=settings.dim, device=device),
    )
    asked = Options(index=index, sources=(str(docs),))
    summary = ingest(asked, tools=tools, report=Report(quiet=True))
    texts: list[str] = ds.dataset(index / "current/vectors").to_table(columns=["text"])["text"].to_pylist()
    return summary, texts


def engine_alone(texts: list[str]) -> tuple[float, float]:
    """(tokens/s, padding) of the engine fed the same chunks, two batches in flight."""
    tokens = load_tokenizer(MODEL.folder)
    rows = [tokens.whole(text) for text in texts]
    engine = torch_engine.open_engine(MODEL, dim=MODEL.width, device="cpu")
    lengths = [row.size for row in rows]
    batches = pack(lengths, batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=True)
    engine.submit([rows[0]]).result()
    started = time.perf_counter()
    for future in [engine.submit([rows[i] for i in batch]) for batch in batches]:
        future.result()
    elapsed = time.perf_counter() - started
    engine.close()
    device_tokens = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return sum(lengths) / elapsed, 1 - sum(lengths) / device_tokens


def sentence_transformers_alone(texts: list[str]) -> float:
    from sentence_transformers import SentenceTransformer

    tokens = load_tokenizer(MODEL.folder)
    count = sum(tokens.whole(text).size for text in texts)
    model = SentenceTransformer(str(MODEL.folder), device="cpu")
    model.encode(texts[:8])
    started = time.perf_counter()
    model.encode(texts)
    return count / (time.perf_counter() - started)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "docs").mkdir()
    make_corpus(folder / "docs", float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    summary, texts = whole(folder / "docs", folder / "index")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    alone, padding = engine_alone(texts)
    theirs = sentence_transformers_alone(texts)
    ours = summary.tokens_per_s
    print(f"{len(texts)} chunks, {summary.tokens['embedded']} tokens, {summary.elapsed_s:.0f} s with the model's start")
    print(f"{'':24}{'tokens/s':>10}{'of engine':>11}{'of s-t':>8}")
    for name, rate in (("whole ingest", ours), ("engine alone", alone), ("sentence-transformers", theirs)):
        print(f"{name:24}{rate:>10,.0f}{rate / alone:>11.2f}{rate / theirs:>8.2f}")
    print(f"padding {padding:.1%}; peak RSS of the parent, torch included, {peak_mb:,.0f} MB")
    print(json.dumps(summary.to_json()))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
