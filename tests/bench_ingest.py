"""Prints what a whole ingest costs beside its engine alone and sentence-transformers, with MiniLM on this CPU.

    PYTHONPATH=. python tests/bench_ingest.py [MEGABYTES of text, 1 by default] [ENGINE: auto, openvino or torch]

In: generated documents of mixed lengths. Out: a table of tokens/s and of tokens per CPU second, reading processes and
all; padding and peak memory; the CPU seconds of a run after one file was edited, and of a first query, the goal in
brackets. Loading the model is left out of the table. A neighbour changes the seconds, hardly the CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from embedcli.config import Options
from embedcli.engines.choose import open_on_cpu
from embedcli.engines.contract import Engine, pack
from embedcli.ingest import ingest
from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from embedcli.report import Report, Summary
from embedcli.run.tools import Tools
from tests.workshop import words

MODEL = resolve.resolve("minilm", report=print)
FIRST_QUERY = """
import sys
from pathlib import Path
from embedcli.engines.query import open_queries, read_model
open_queries(read_model(Path(sys.argv[1])), say=print).vector("What was read again?")
"""


@dataclass(frozen=True)
class Rate:
    """Tokens a second of the clock and of the CPU."""

    wall: float
    cpu: float


def rate(work: Callable[[], int]) -> Rate:
    """Of what embeds as many tokens as it returns; its child processes that have ended count too."""
    wall_s, cpu_s = time.perf_counter(), spent_s()
    tokens = work()
    return Rate(tokens / (time.perf_counter() - wall_s), tokens / (spent_s() - cpu_s))


def spent_s() -> float:
    """CPU seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def make_corpus(folder: Path, megabytes: float) -> None:
    """Documents of 100 to 4,000 made-up words, in paragraphs of 20 to 120."""
    generator = np.random.default_rng(0)
    written = number = 0
    while written < megabytes * 1e6:
        paragraphs = generator.integers(20, 120, max(1, int(generator.lognormal(2.5, 1.0))))
        text = "\n".join(words(int(count), number * 1000 + i) for i, count in enumerate(paragraphs))
        (folder / f"{number:05d}.txt").write_text(text)
        written, number = written + len(text), number + 1


class Kept:
    """An engine that outlives the run: what it costs to open is no part of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def close(self) -> None:
        """The engine is measured alone afterwards."""


def whole(docs: Path, index: Path, engine: Engine) -> Summary:
    tools = Tools(
        resolve=lambda asked, memory: MODEL, device_kind=lambda asked: "cpu", open_engine=lambda *_: Kept(engine)
    )
    return ingest(Options(index=index, sources=(str(docs),)), tools=tools, report=Report(quiet=True))


def engine_alone(engine: Engine, rows: list[np.ndarray]) -> int:
    """Two batches in flight."""
    batches = batches_of(engine, rows)
    for future in [engine.submit([rows[i] for i in batch]) for batch in batches]:
        future.result()
    return sum(row.size for row in rows)


def batches_of(engine: Engine, rows: list[np.ndarray]) -> list[list[int]]:
    lengths = [row.size for row in rows]
    return pack(lengths, batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=True)


def padding(engine: Engine, rows: list[np.ndarray]) -> float:
    device_tokens = sum(max(rows[i].size for i in batch) * len(batch) for batch in batches_of(engine, rows))
    return 1 - sum(row.size for row in rows) / device_tokens


def sentence_transformers(texts: list[str]) -> Callable[[], object]:
    """What embeds the texts, with its model loaded."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL.folder), device="cpu")
    model.encode(texts[:8])
    return lambda: model.encode(texts)


def cpu_s(*command: object) -> float:
    """The CPU seconds of a command, which must succeed."""
    before = spent_s()
    subprocess.run([sys.executable, *map(str, command)], stderr=subprocess.DEVNULL, check=True)
    return spent_s() - before


def main(megabytes: float, engine_name: str) -> None:
    folder = Path(tempfile.mkdtemp())
    docs, index = folder / "docs", folder / "index"
    docs.mkdir()
    make_corpus(docs, megabytes)
    engine = open_on_cpu(MODEL, dim=MODEL.width, engine=engine_name, say=print)
    engine.submit([np.full(200, 5, np.uint32)] * 10).result()
    summaries: list[Summary] = []

    def run() -> int:
        summaries.append(whole(docs, index, engine))
        return summaries[0].tokens["embedded"]

    rates = {"whole ingest": rate(run)}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    texts: list[str] = ds.dataset(index / "current/vectors").to_table(columns=["text"])["text"].to_pylist()
    tokens = load_tokenizer(MODEL.folder)
    rows = [tokens.row_of(text) for text in texts]
    rates["engine alone"] = rate(lambda: engine_alone(engine, rows))
    encode = sentence_transformers(texts)
    rates["sentence-transformers"] = rate(lambda: encode() is not None and sum(row.size for row in rows))
    print(f"{len(texts)} chunks, {summaries[0].tokens['embedded']} tokens, {type(engine).__name__} {engine.precision}")
    print(f"{'':24}{'tokens/s':>10}{'of engine':>11}{'of s-t':>8}{'tokens/CPU s':>14}{'of engine':>11}{'of s-t':>8}")
    alone, theirs = rates["engine alone"], rates["sentence-transformers"]
    for name, found in rates.items():
        print(f"{name:24}{found.wall:>10,.0f}{found.wall / alone.wall:>11.2f}{found.wall / theirs.wall:>8.2f}", end="")
        print(f"{found.cpu:>14,.0f}{found.cpu / alone.cpu:>11.2f}{found.cpu / theirs.cpu:>8.2f}")
    print(f"padding {padding(engine, rows):.1%}; peak RSS of the parent {peak_mb:,.0f} MB")
    with (docs / "00000.txt").open("a") as edited:
        edited.write("One sentence more.\n")
    ran = cpu_s("-m", "embedcli", "ingest", "--index", index, "--engine", engine_name)
    print(f"a run after one file was edited: {ran:.2f} CPU s (3)")
    queries = [cpu_s("-c", FIRST_QUERY, index) for _ in range(4)][1:]  # the first checks the index's probe set
    print(f"the first vector of a query, Python's start and all: {min(queries):.2f} CPU s (0.5)")
    print(json.dumps(summaries[0].to_json()))
    shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, sys.argv[2] if len(sys.argv) > 2 else "auto")
