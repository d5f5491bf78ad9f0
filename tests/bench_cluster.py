"""Prints the weak scaling of a run over workers in processes of their own, and what the run itself costs.

    PYTHONPATH=. python tests/bench_cluster.py [DOCUMENTS a worker, 250 by default] [WORKERS ...: 1 2 4 8 by default]

In: generated documents, so many for each worker; an engine of a fixed speed in each. Out: a line for each number of
workers: seconds in all, of work since the workers were ready, and ideal ones; tokens/s, and their share of the ideal;
CPU seconds of the run's own process for each million tokens, until the workers had done everything and for the publish;
bytes of messages for each document. Workers share the cores of this machine for their reading, so the share of the
ideal is a lower bound; CPU seconds and bytes are sound.

Seen on two cores with a load of 7 from others, 200 documents of 1,800 tokens a worker:
workers whole, s  work, s ideal, s  tokens/s  share CPU s / M tok publishing  bytes to, back
      1     51.7     50.6     49.0     7,753    97%          0.47       0.71       181   414
      2     51.6     50.5     48.5    15,372    96%          0.24       0.31       182   407
      4     53.2     50.4     48.8    30,939    97%          0.23       0.31       182   423
      8     41.0     35.3     24.4    44,228    69%          0.36       0.42       194   515   (100 documents)
Of the publish, more than half is the cache of searches, which is no part of what workers wait for.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from embedcli.cluster.transport import Handle
from embedcli.report import Progress
from tests.cluster_doubles import Double, Processes, ProcessHandle
from tests.workshop import Lines, Workshop, words

TOKENS_PER_S = 8_000.0
WORDS = 450
"""Of the median document; with MiniLM's tokenizer a word of these is three tokens."""

VOCABULARY = 30_000


class Counted(Processes):
    """Counts the bytes of what is offered and answered."""

    offered = answered = 0

    def arrived(self) -> list[Handle]:
        handles = super().arrived()
        for handle in handles:
            self._watch(handle)
        return handles

    def _watch(self, handle: Any) -> None:
        plain = handle.call

        def call(method: str, message: bytes) -> Any:
            future = plain(method, message)
            if method == "offer":
                self.offered += len(message)
            elif method == "collect":
                future.add_done_callback(self._count)
            return future

        handle.call = call

    def _count(self, future: Any) -> None:
        if future.exception() is None:
            self.answered += len(future.result())


class Timed(Lines):
    """Remembers when the last of the workers was ready, and when they had done everything: the clock, and our CPU."""

    ready_s = done_s = done_cpu = 0.0

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        if progress.phase == "publishing":
            self.done_s, self.done_cpu = time.perf_counter(), time.process_time()

    def _write(self, text: str, *, show: bool) -> None:
        if " is ready: " in text:
            self.ready_s = time.perf_counter()
        super()._write(text, show=show)


def make_corpus(shop: Workshop, documents: int) -> None:
    """Words that come as often as those of a text do: were every word a new one, the cache of searches, which the run
    makes after its publish, would cost four times as much."""
    chooser = np.random.default_rng(0)
    vocabulary = np.array(words(VOCABULARY, seed=1).split())
    for number, size in enumerate(chooser.lognormal(np.log(WORDS), 0.6, documents).astype(int)):
        chosen = chooser.zipf(1.2, int(max(20, size))) % VOCABULARY
        shop.write(f"{number // 100:03d}/{number:05d}.txt", " ".join(vocabulary[chosen]) + ".\n")


def measure(documents: int, workers: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-cluster-"))
    try:
        shop = Workshop(folder)
        make_corpus(shop, documents * workers)
        force = Counted(workers, Double(tokens_per_s=TOKENS_PER_S, reading_processes=True))
        force.forked = [ProcessHandle(f"worker-{number}", fork=True) for number in range(workers)]
        report = Timed()
        began_cpu, began_s = time.process_time(), time.perf_counter()
        summary = shop.ingest(workforce=force, report=report, dim=128, max_tokens=256)
        cpu_s, publish_cpu_s = report.done_cpu - began_cpu, time.process_time() - report.done_cpu
        wall_s, whole_s = report.done_s - report.ready_s, time.perf_counter() - began_s
    finally:
        shutil.rmtree(folder)
    tokens = summary.tokens["embedded"]
    ideal_s = tokens / TOKENS_PER_S / workers
    count = documents * workers
    print(
        f"{workers:>7} {whole_s:>8.1f} {wall_s:>8.1f} {ideal_s:>8.1f} {tokens / wall_s:>9,.0f} {ideal_s / wall_s:>6.0%}"
        f" {cpu_s / tokens * 1e6:>13.2f} {publish_cpu_s / tokens * 1e6:>10.2f} {force.offered / count:>9.0f}"
        f" {force.answered / count:>5.0f}",
        flush=True,
    )


def main(documents: int = 250, workers: Iterable[int] = (1, 2, 4, 8)) -> None:
    print("workers whole, s  work, s ideal, s  tokens/s  share CPU s / M tok publishing  bytes to, back")
    for count in workers:
        measure(documents, count)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 250, given[1:] or (1, 2, 4, 8))
